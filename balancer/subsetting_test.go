package balancer

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/inboardmesh/inboard/internal/racing"
)

func addressesOf(localities []LocalityEndpoints) []string {
	var list []string
	for i := range localities {
		for j := range localities[i].Endpoints {
			list = append(list, localities[i].Endpoints[j].Address)
		}
	}
	return list
}

func endpointsFrom(first, n int) []Endpoint {
	list := make([]Endpoint, n)
	for i := range list {
		list[i].Address = fmt.Sprintf("10.%d.%d.%d:80", (first+i)>>16, (first+i)>>8&255, (first+i)&255)
	}
	return list
}

// crowd is clients that meet endpoints, which come and go.
type crowd struct {
	random    *rand.Rand
	numbered  bool
	names     []string
	endpoints []Endpoint
	next      int // the first address that was not used yet
	// had is what each client had before, nil of one that is new.
	had []map[string]bool
	// known are the endpoints of before.
	known map[string]bool
}

// meeting is what becomes of a crowd: how many connections there are, in all, of the
// client and of the endpoint with fewest and with most, and what the endpoint with the
// highest load has of what all clients send that send one request in turn to each of
// their endpoints, by the mean.
type meeting struct {
	total, least, most, fewest, highest int
	heaviest                            float64
	// opened are the connections that were not there before. Of them are needed those
	// of clients and of endpoints that are new, and as many as there are more in all.
	opened, needed int
}

func (c *crowd) meet(s Subsetting, before meeting) meeting {
	m := meeting{least: len(c.endpoints), fewest: len(c.names)}
	now := make([]map[string]bool, len(c.names))
	connections, load := make(map[string]int), make(map[string]float64)
	localities := []LocalityEndpoints{{Weight: 1, Endpoints: c.endpoints}}
	for i := range now {
		part := addressesOf(s.Choose(Client{Name: c.names[i], Number: uint32(i), Numbered: c.numbered}, localities))
		m.least, m.most, m.total = min(m.least, len(part)), max(m.most, len(part)), m.total+len(part)
		now[i] = make(map[string]bool, len(part))
		isNew := i >= len(c.had) || c.had[i] == nil
		for _, a := range part {
			now[i][a] = true
			connections[a]++
			load[a] += 1 / float64(len(part))
			if isNew || !c.had[i][a] {
				m.opened++
			}
			if isNew || !c.known[a] {
				m.needed++
			}
		}
	}
	m.needed = max(m.needed, m.total-before.total)
	known := make(map[string]bool, len(c.endpoints))
	for _, e := range c.endpoints {
		known[e.Address] = true
		m.fewest, m.highest = min(m.fewest, connections[e.Address]), max(m.highest, connections[e.Address])
		m.heaviest = max(m.heaviest, load[e.Address]*float64(len(c.endpoints))/float64(len(c.names)))
	}
	c.had, c.known = now, known
	return m
}

// replace replaces so many endpoints, and a client by one of another name that takes its
// number.
func (c *crowd) replace(n int) {
	for range n {
		c.endpoints[c.random.IntN(len(c.endpoints))] = endpointsFrom(c.next, 1)[0]
		c.next++
	}
	i := c.random.IntN(len(c.names))
	c.names[i], c.had[i] = fmt.Sprint("replacement ", c.next), nil
}

// resize makes there be so many clients and endpoints.
func (c *crowd) resize(clients, endpoints int) {
	for len(c.names) < clients {
		c.names = append(c.names, fmt.Sprint("client-", len(c.names)))
	}
	c.names = c.names[:clients]
	c.had = c.had[:min(clients, len(c.had))]
	for len(c.endpoints) > endpoints {
		i := c.random.IntN(len(c.endpoints))
		c.endpoints = slices.Delete(c.endpoints, i, i+1)
	}
	more := endpointsFrom(c.next, endpoints-len(c.endpoints))
	c.endpoints, c.next = append(c.endpoints, more...), c.next+len(more)
}

// 1,000 clients and 1,000 endpoints, of which some are replaced, and which become more
// and fewer: from 1,280 on a lot has 64 clients instead of 32.
func TestSubsettingKeepsConnectionsAndSkewBounded(t *testing.T) {
	if racing.Enabled {
		t.Skip("one goroutine computes for half a minute: there is no race to be found")
	}
	t.Parallel()
	const size, seed = 20, 20261129
	steps := []struct {
		name   string
		change func(*crowd)
	}{
		{"at first", func(c *crowd) { c.resize(1000, 1000) }},
		{"one in a hundred is replaced", func(c *crowd) { c.replace(10) }},
		{"again", func(c *crowd) { c.replace(10) }},
		{"a tenth more clients", func(c *crowd) { c.resize(1100, 1000) }},
		{"more endpoints", func(c *crowd) { c.resize(1100, 1270) }},
		{"larger lots", func(c *crowd) { c.resize(1100, 1290) }},
		{"smaller lots", func(c *crowd) { c.resize(1100, 1270) }},
	}
	for name, numbered := range map[string]bool{"numbered": true, "by name": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := &crowd{random: rand.New(rand.NewPCG(seed, 1)), numbered: numbered}
			var m meeting
			for i, step := range steps {
				step.change(c)
				m = c.meet(Subsetting{Size: size}, m)
				t.Logf("seed %d, %s: %d connections, %d..%d of a client, %d..%d of an endpoint, highest load %.2f of the mean, %d connections are new, %d of them needed",
					seed, step.name, m.total, m.least, m.most, m.fewest, m.highest, m.heaviest, m.opened, m.needed)
				if numbered {
					if m.highest-m.fewest > 1 || m.heaviest > 1.25 || m.most > 3*size || m.least < size/2 {
						t.Errorf("%s: connections or loads are not even", step.name)
					}
				} else if m.least != size || m.most != size || m.heaviest > 2.5 {
					t.Errorf("%s: connections are not bounded", step.name)
				}
				// Of a client without a number one that leaves is followed by another.
				if most := 2*m.needed + 2*len(c.names)*size/50; i > 0 && m.opened > most {
					t.Errorf("%s: %d connections are new, want at most %d", step.name, m.opened, most)
				}
			}
		})
	}
}

func TestSubsettingOfPriorities(t *testing.T) {
	t.Parallel()
	here, there := Locality{Zone: "a"}, Locality{Zone: "b"}
	localities := []LocalityEndpoints{
		{Locality: here, Weight: 1, Endpoints: endpointsFrom(0, 60)}, {Locality: there, Weight: 2, Endpoints: endpointsFrom(100, 60)},
		{Locality: there, Weight: 1, Priority: 1, Endpoints: endpointsFrom(200, 5)},
	}
	for _, client := range []Client{{Name: "a"}, {Number: 7, Numbered: true}} {
		chosen := Subsetting{Size: 10}.Choose(client, localities)
		counts := make(map[uint32]int)
		for _, l := range chosen {
			counts[l.Priority] += len(l.Endpoints)
		}
		if counts[0] < 5 || counts[0] > 22 || counts[1] != 5 {
			t.Errorf("%+v has %v endpoints by priority", client, counts)
		}
		reversed := slices.Clone(localities)
		slices.Reverse(reversed)
		again := addressesOf(Subsetting{Size: 10}.Choose(client, reversed))
		slices.Sort(again)
		want := addressesOf(chosen)
		slices.Sort(want)
		if diff := cmp.Diff(want, again); diff != "" {
			t.Errorf("the order of the configuration matters:\n%s", diff)
		}
	}
	for _, s := range []Subsetting{{}, {Size: 1000}} {
		if diff := cmp.Diff(localities, s.Choose(Client{}, localities)); diff != "" {
			t.Errorf("%+v: %s", s, diff)
		}
	}
}
