package main

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// sample is one call to the customer, as its caller saw it.
type sample struct {
	// start is when the call was due, and took is until when its answer was
	// there: a late start counts as waiting.
	start time.Time
	took  time.Duration
	user  string
	reply reply
	// expected is true for a failure that the story has announced.
	expected bool
}

// reply is what the customer answers. A nil Error is a success.
type reply struct {
	Via      string   `json:"via"`
	Version  string   `json:"version"`
	Instance string   `json:"instance"`
	Caller   string   `json:"caller"`
	Error    *failure `json:"error"`
}

type failure struct {
	Kind    string `json:"kind"`
	Cluster string `json:"cluster"`
	Message string `json:"message"`
}

// summary is what samples come to.
type summary struct {
	calls, failed, refused int
	p50, p99               time.Duration
	// share is how much of the answers to everybody but ada each version gave,
	// in percent; ada is how her own were spread.
	share, ada map[string]float64
	// callers are the identities that payments saw, sorted.
	callers []string
}

func summarize(samples []sample) summary {
	s := summary{calls: len(samples)}
	var took []time.Duration
	var others, adas []sample
	callers := make(map[string]bool)
	for _, one := range samples {
		switch {
		case one.expected:
			s.refused++
			continue
		case one.reply.Error != nil:
			s.failed++
			continue
		}
		took = append(took, one.took)
		callers[one.reply.Caller] = true
		if one.user == ada {
			adas = append(adas, one)
		} else {
			others = append(others, one)
		}
	}
	slices.Sort(took)
	s.p50, s.p99 = percentile(took, 50), percentile(took, 99)
	s.share, s.ada = shares(others), shares(adas)
	s.callers = slices.Sorted(maps.Keys(callers))
	return s
}

// shares is how many percent of the samples each version answered.
func shares(samples []sample) map[string]float64 {
	share := make(map[string]float64)
	for _, one := range samples {
		share[one.reply.Version] += 100 / float64(len(samples))
	}
	return share
}

// percentile returns the smallest value that at least p percent of the sorted
// values do not exceed (nearest rank), 0 for none.
func percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := (p*len(sorted) + 99) / 100
	return sorted[max(rank, 1)-1]
}

// last returns the last n successful samples of ada, or of everybody else, and
// fewer if there are not that many.
func last(samples []sample, n int, ofAda bool) []sample {
	found := make([]sample, 0, n)
	for _, one := range slices.Backward(samples) {
		if one.reply.Error == nil && (one.user == ada) == ofAda {
			if found = append(found, one); len(found) == n {
				break
			}
		}
	}
	return found
}

// shortID is the namespace and the service account of a SPIFFE ID.
func shortID(id string) string {
	_, path, found := strings.Cut(id, "/ns/")
	if !found {
		return id
	}
	return strings.Replace(path, "/sa/", "/", 1)
}
