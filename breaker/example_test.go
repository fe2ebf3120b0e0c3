package breaker_test

import (
	"errors"
	"fmt"
	"time"

	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/outcome"
)

func ExampleGate() {
	gate := breaker.NewGate(breaker.Limits{MaxRequests: 1})
	fmt.Println(gate.TryRequest(), gate.TryRequest())
	gate.ReleaseRequest()
	fmt.Println(gate.TryRequest(), gate.Usage().Requests)
	// Output:
	// true false
	// true 1
}

func ExampleGate_AddConnection() {
	gate := breaker.NewGate(breaker.Limits{MaxConnections: 1})
	gate.AddConnection()
	gate.AddConnection() // of a pool that would have none
	fmt.Println(gate.Usage().Connections, gate.Remaining().Connections)
	gate.ReleaseConnection()
	fmt.Println(gate.TryConnection())
	// Output:
	// 2 0
	// false
}

func ExampleGate_SetRetryBudget() {
	gate := breaker.NewGate(breaker.DefaultLimits)
	gate.SetRetryBudget(20, 3, true)
	for range 100 {
		gate.TryRequest()
	}
	retries := 0
	for gate.TryRetry() {
		retries++
	}
	fmt.Println(retries)
	// Output: 20
}

func ExampleErrorRate() {
	b := breaker.NewErrorRate("payment", breaker.Settings{
		FailureRatio:   0.5,
		MinRequests:    3,
		Window:         10 * time.Second,
		OpenTime:       5 * time.Second,
		HalfOpenProbes: 1,
	}, func(from, to breaker.State) { fmt.Println(from, "->", to) })

	attempt := func(verdict outcome.Verdict) error {
		permit, err := b.Allow()
		if err != nil {
			return err
		}
		permit.Done(verdict)
		return nil
	}
	for range 3 {
		if err := attempt(outcome.Failure); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println(errors.Is(attempt(outcome.Success), breaker.ErrOpen))
	// Output:
	// closed -> open
	// true
}

func ExampleSettings_Validate() {
	err := breaker.Settings{FailureRatio: 50, MinRequests: 1, Window: time.Second, OpenTime: time.Second, HalfOpenProbes: 1}.Validate()
	fmt.Println(err)
	// Output: failureRatio 50: must be above 0 and at most 1
}
