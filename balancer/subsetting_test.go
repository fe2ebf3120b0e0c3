package balancer

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
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

// 1,000 clients and 1,000 endpoints; in each step one endpoint in a hundred is
// replaced, and one client, by one of another name that takes its number. The load of
// an endpoint is what all clients send it that send one request in turn to each of
// their own.
func TestSubsettingKeepsConnectionsAndSkewBounded(t *testing.T) {
	t.Parallel()
	const clients, endpoints, size, steps, replaced = 1000, 1000, 20, 3, 10
	for name, numbered := range map[string]bool{"numbered": true, "by name": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seed := uint64(20261129)
			random := rand.New(rand.NewPCG(seed, 1))
			subsetting := Subsetting{Size: size}
			list, next := endpointsFrom(0, endpoints), endpoints
			names := make([]string, clients)
			for i := range names {
				names[i] = fmt.Sprint("client-", i)
			}
			var before []map[string]bool
			for step := range steps {
				now := make([]map[string]bool, clients)
				connections, load := make(map[string]int), make(map[string]float64)
				least, most, total, changed := endpoints, 0, 0, 0
				for i := range now {
					client := Client{Name: names[i], Number: uint32(i), Numbered: numbered}
					part := addressesOf(subsetting.Choose(client, []LocalityEndpoints{{Weight: 1, Endpoints: list}}))
					least, most, total = min(least, len(part)), max(most, len(part)), total+len(part)
					now[i] = make(map[string]bool, len(part))
					for _, a := range part {
						now[i][a] = true
						connections[a]++
						load[a] += 1 / float64(len(part))
						if before != nil && !before[i][a] { // a new client had none
							changed++
						}
					}
				}
				fewest, highest, heaviest := clients, 0, 0.0
				for _, e := range list {
					fewest, highest = min(fewest, connections[e.Address]), max(highest, connections[e.Address])
					heaviest = max(heaviest, load[e.Address]/(clients/float64(endpoints)))
				}
				t.Logf("seed %d, step %d: %d connections, %d..%d of a client, %d..%d of an endpoint, highest load %.2f of the mean, %d connections are new",
					seed, step, total, least, most, fewest, highest, heaviest, changed)
				if numbered {
					if highest-fewest > 1 || heaviest > 1.3 || most > 2*size+size/8 || least < size/2 {
						t.Error("connections or loads are not even")
					}
					if changed > total/10 {
						t.Error("more than a tenth of the connections are new")
					}
				} else if least != size || most != size || heaviest > 2.5 || changed > 2*total*replaced/endpoints+2*size {
					t.Error("connections are not bounded")
				}
				before = now
				i := random.IntN(clients)
				names[i], before[i] = fmt.Sprint("client-", clients+step), nil
				for i := range replaced {
					list[random.IntN(endpoints)] = endpointsFrom(next+i, 1)[0]
				}
				next += replaced
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
