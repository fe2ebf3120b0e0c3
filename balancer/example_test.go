package balancer_test

import (
	"errors"
	"fmt"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/outcome"
)

func ExampleSet() {
	set := balancer.NewSet(balancer.Config{Policy: balancer.LeastRequest}, nil)
	set.Update(balancer.Config{Policy: balancer.LeastRequest}, []balancer.LocalityEndpoints{{
		Locality: balancer.Locality{Region: "eu", Zone: "eu-1"},
		Endpoints: []balancer.Endpoint{
			{Address: "10.0.0.1:8080"},
			{Address: "10.0.0.2:8080"},
			{Address: "10.0.0.3:8080", Health: balancer.Draining},
		},
	}})

	first, err := set.Pick(balancer.PickInfo{})
	if err != nil {
		fmt.Println(err)
		return
	}
	first.Begin()
	defer first.End()
	// The first host is busy now: of two hosts the other one has less to do.
	second, err := set.Pick(balancer.PickInfo{})
	fmt.Println(second != first, second.Locality(), err)
	// Output: true eu/eu-1 <nil>
}

func ExampleSet_Pick_retry() {
	set := balancer.NewSet(balancer.Config{}, nil)
	set.Update(balancer.Config{}, []balancer.LocalityEndpoints{{
		Endpoints: []balancer.Endpoint{{Address: "10.0.0.1:8080"}, {Address: "10.0.0.2:8080"}},
	}})
	var tried []*balancer.Host
	for range 2 {
		h, err := set.Pick(balancer.PickInfo{Avoid: tried})
		if err != nil {
			fmt.Println(err)
			return
		}
		tried = append(tried, h)
	}
	fmt.Println(tried[0] != tried[1])
	// Output: true
}

func ExampleSet_Update() {
	set := balancer.NewSet(balancer.Config{}, func(h *balancer.Host) any {
		return "connections to " + h.Endpoint().Address
	})
	set.Update(balancer.Config{}, []balancer.LocalityEndpoints{{
		Endpoints: []balancer.Endpoint{{Address: "10.0.0.1:8080"}, {Address: "10.0.0.2:8080"}},
	}})
	added, removed := set.Update(balancer.Config{}, []balancer.LocalityEndpoints{{
		Endpoints: []balancer.Endpoint{{Address: "10.0.0.2:8080"}, {Address: "10.0.0.3:8080"}},
	}})
	fmt.Println("opened:", added[0].Attached())
	fmt.Println("to drain:", removed[0].Attached())
	// Output:
	// opened: connections to 10.0.0.3:8080
	// to drain: connections to 10.0.0.1:8080
}

func ExampleNewSet() {
	set := balancer.NewSet(balancer.Config{}, nil)
	_, err := set.Pick(balancer.PickInfo{})
	fmt.Println(errors.Is(err, balancer.ErrNoEndpoint), err)
	// Output: true no endpoint in the cluster
}

func ExampleLocality_String() {
	fmt.Println(balancer.Locality{Region: "eu", Zone: "eu-1"})
	// Output: eu/eu-1
}

func ExampleSet_SetOutlier() {
	set := balancer.NewSet(balancer.Config{}, nil)
	set.Update(balancer.Config{}, []balancer.LocalityEndpoints{{
		Endpoints: []balancer.Endpoint{{Address: "10.0.0.1:8080"}, {Address: "10.0.0.2:8080"}},
	}})
	policy := balancer.DefaultOutlierConfig()
	set.SetOutlier(&policy)

	// The first host fails until it is left out. Somebody else has to call
	// set.Sweep every policy.Interval, so that it returns.
	var failing *balancer.Host
	for failing == nil {
		h, err := set.Pick(balancer.PickInfo{})
		if err != nil {
			fmt.Println(err)
			return
		}
		o := outcome.Outcome{Kind: outcome.Response, Status: 200}
		if h.Endpoint().Address == "10.0.0.1:8080" {
			o.Status = 500
		}
		if e, ok := h.Report(&o); ok {
			failing = e.Host
		}
	}
	reason, ejected := failing.Ejected()
	fmt.Println(failing.Endpoint().Address, ejected, reason)
	h, err := set.Pick(balancer.PickInfo{})
	fmt.Println(h.Endpoint().Address, err)
	// Output:
	// 10.0.0.1:8080 true consecutive-5xx
	// 10.0.0.2:8080 <nil>
}

func ExampleSet_AfterChange() {
	set := balancer.NewSet(balancer.Config{}, nil)
	changed := make(chan struct{})
	stop := set.AfterChange(func() { close(changed) })
	defer stop()
	// Only now, so that no change is missed.
	_, err := set.Pick(balancer.PickInfo{})
	fmt.Println(err)
	go set.Update(balancer.Config{}, []balancer.LocalityEndpoints{{Endpoints: []balancer.Endpoint{{Address: "10.0.0.1:8080"}}}})
	<-changed
	host, err := set.Pick(balancer.PickInfo{})
	fmt.Println(host.Endpoint().Address, err)
	// Output:
	// no endpoint in the cluster
	// 10.0.0.1:8080 <nil>
}
