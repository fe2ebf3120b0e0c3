package retry_test

import (
	"fmt"
	"time"

	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/retry"
)

func ExamplePolicy_Start() {
	policy := &retry.Policy{
		MaxRetries: 2,
		On:         retry.OnGatewayError | retry.OnConnectFailure,
		Backoff:    retry.Backoff{Base: 10 * time.Millisecond},
	}
	answers := []int{503, 503, 200}

	seq := policy.Start()
	for {
		out := outcome.Outcome{Kind: outcome.Response, Status: answers[seq.Attempts()-1], Sent: true}
		fmt.Println("attempt", seq.Attempts(), "gave", out.Status)
		wait, ok := seq.Next(&out)
		if !ok {
			break
		}
		fmt.Println("the wait is below 30ms:", wait < 30*time.Millisecond)
	}
	// Output:
	// attempt 1 gave 503
	// the wait is below 30ms: true
	// attempt 2 gave 503
	// the wait is below 30ms: true
	// attempt 3 gave 200
}

func ExampleParseConditions() {
	on, err := retry.ParseConditions("connect-failure, gateway-error")
	fmt.Println(on, err)
	_, err = retry.ParseConditions("gateway-eror")
	fmt.Println(err != nil)
	// Output:
	// gateway-error,connect-failure <nil>
	// true
}

func ExamplePolicy_Retryable() {
	policy := &retry.Policy{On: retry.On5xx}
	fmt.Println(policy.Retryable(&outcome.Outcome{Kind: outcome.Response, Status: 503}))
	fmt.Println(policy.Retryable(&outcome.Outcome{Kind: outcome.Canceled}))
	// Output:
	// true
	// false
}
