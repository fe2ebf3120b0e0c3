package istio

import (
	"slices"
	"strconv"
	"strings"
)

// Envoy's command operators that clients have: they stand between percent signs in
// the value of a header, and for something of the request or its response. Those of
// the response have no value yet when a request is sent.
var (
	requestCommands = []string{
		"DOWNSTREAM_DIRECT_REMOTE_ADDRESS", "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", "DOWNSTREAM_DIRECT_REMOTE_PORT",
		"DOWNSTREAM_LOCAL_ADDRESS", "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", "DOWNSTREAM_LOCAL_PORT", "DOWNSTREAM_PEER_URI_SAN",
		"DOWNSTREAM_REMOTE_ADDRESS", "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", "DOWNSTREAM_REMOTE_PORT",
		"HOSTNAME", "PROTOCOL", "QUERY_PARAM", "REQ", "ROUTE_NAME", "START_TIME", "UPSTREAM_CLUSTER",
	}
	responseCommands = []string{"RESP", "RESPONSE_CODE", "UPSTREAM_REMOTE_ADDRESS"}
)

// checkHeaderValue refuses what cannot be sent, and command operators that clients
// do not have.
func checkHeaderValue(value string, request bool, a at) {
	checkHeaderText(value, a)
	rest := value
	for {
		_, command, ok := strings.Cut(rest, "%")
		if !ok {
			return
		}
		if rest, ok = strings.CutPrefix(command, "%"); ok {
			continue
		}
		name := command[:len(command)-len(strings.TrimLeft(command, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"))]
		if rest, ok = afterCommand(command[len(name):]); name == "" || !ok {
			a.errorf(`"%%" begins no command operator: write "%%%%" for a percent sign`)
			return
		}
		known := requestCommands
		if !request {
			known = slices.Concat(requestCommands, responseCommands)
		}
		switch {
		case slices.Contains(known, name):
		case slices.Contains(responseCommands, name):
			a.errorf("the command operator %s is for responses: nothing is known of them when a request is sent", name)
		default:
			a.errorf("the command operator %s is not supported: use one of %s", name, strings.Join(slices.Sorted(slices.Values(known)), ", "))
		}
	}
}

// afterCommand returns what follows a command's arguments, its length and the percent
// sign at its end.
func afterCommand(text string) (rest string, ok bool) {
	if arguments, ok := strings.CutPrefix(text, "("); ok {
		if _, text, ok = strings.Cut(arguments, ")"); !ok {
			return "", false
		}
	}
	if length, ok := strings.CutPrefix(text, ":"); ok {
		digits, _, _ := strings.Cut(length, "%")
		if n, err := strconv.ParseUint(digits, 10, 31); err != nil || n == 0 {
			return "", false
		}
		text = length[len(digits):]
	}
	return strings.CutPrefix(text, "%")
}
