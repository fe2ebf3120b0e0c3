package discovery

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// Format is a text with Envoy's command operators, "%REQ(x-user)%", which stand
// for something of the request. It is immutable.
type Format struct {
	// Source is the text as configured.
	Source string
	// Parts follow each other; there is at least one.
	Parts []FormatPart
}

// FormatPart is a piece of text, or a command.
type FormatPart struct {
	Command Command
	// Text is the text of CommandText, the layout of CommandStartTime.
	Text string
	// Name and Alternative are the arguments of CommandRequestHeader,
	// CommandResponseHeader and CommandQueryParameter. Names of headers are lower
	// case. The alternative is taken if there is nothing of the name; "" is none.
	Name, Alternative string
	// MaxLength cuts what the command gives; 0 does not.
	MaxLength int
}

// Command is what a part of a [Format] stands for. What is not known, such as
// the peer of a request that this process makes itself, is the empty text.
type Command uint8

// The commands that are supported, with Envoy's names for them.
const (
	// CommandText is no command.
	CommandText Command = iota
	// CommandRequestHeader is REQ(NAME) or REQ(NAME?ALTERNATIVE): a header of the
	// request, its pseudo-headers included.
	CommandRequestHeader
	// CommandQueryParameter is QUERY_PARAM(NAME): the first value, decoded.
	CommandQueryParameter
	// CommandProtocol is PROTOCOL: "HTTP/1.1" or "HTTP/2", as the application's
	// request has it; gRPC is HTTP/2.
	CommandProtocol
	// CommandStartTime is START_TIME or START_TIME(LAYOUT): when the call began,
	// in UTC, by a layout of [CheckTimeLayout].
	CommandStartTime
	// CommandHostname is HOSTNAME: the name of this machine.
	CommandHostname
	// CommandRouteName is ROUTE_NAME.
	CommandRouteName
	// CommandCluster is UPSTREAM_CLUSTER: the name of the cluster.
	CommandCluster
	// CommandRemoteAddress is DOWNSTREAM_REMOTE_ADDRESS, "host:port" of the
	// connection's other side, also called DOWNSTREAM_DIRECT_REMOTE_ADDRESS:
	// x-forwarded-for is not consulted.
	CommandRemoteAddress
	// CommandRemoteHost is DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT.
	CommandRemoteHost
	// CommandRemotePort is DOWNSTREAM_REMOTE_PORT.
	CommandRemotePort
	// CommandLocalAddress is DOWNSTREAM_LOCAL_ADDRESS, "host:port" of this side.
	CommandLocalAddress
	// CommandLocalHost is DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT.
	CommandLocalHost
	// CommandLocalPort is DOWNSTREAM_LOCAL_PORT.
	CommandLocalPort
	// CommandPeerURISAN is DOWNSTREAM_PEER_URI_SAN: the verified SPIFFE ID of the
	// caller.
	CommandPeerURISAN
	// CommandResponseHeader is RESP(NAME) or RESP(NAME?ALTERNATIVE). It and the
	// following are for what is computed of responses.
	CommandResponseHeader
	// CommandResponseCode is RESPONSE_CODE: the HTTP status; 200 for gRPC.
	CommandResponseCode
	// CommandUpstreamAddress is UPSTREAM_REMOTE_ADDRESS, "host:port" of the
	// endpoint that answered.
	CommandUpstreamAddress
)

// commandNames are the commands by their names in a configuration.
var commandNames = map[string]Command{
	"REQ":                                    CommandRequestHeader,
	"QUERY_PARAM":                            CommandQueryParameter,
	"PROTOCOL":                               CommandProtocol,
	"START_TIME":                             CommandStartTime,
	"HOSTNAME":                               CommandHostname,
	"ROUTE_NAME":                             CommandRouteName,
	"UPSTREAM_CLUSTER":                       CommandCluster,
	"DOWNSTREAM_REMOTE_ADDRESS":              CommandRemoteAddress,
	"DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": CommandRemoteHost,
	"DOWNSTREAM_REMOTE_PORT":                 CommandRemotePort,
	"DOWNSTREAM_DIRECT_REMOTE_ADDRESS":       CommandRemoteAddress,
	"DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT": CommandRemoteHost,
	"DOWNSTREAM_DIRECT_REMOTE_PORT":                 CommandRemotePort,
	"DOWNSTREAM_LOCAL_ADDRESS":                      CommandLocalAddress,
	"DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT":         CommandLocalHost,
	"DOWNSTREAM_LOCAL_PORT":                         CommandLocalPort,
	"DOWNSTREAM_PEER_URI_SAN":                       CommandPeerURISAN,
	"RESP":                                          CommandResponseHeader,
	"RESPONSE_CODE":                                 CommandResponseCode,
	"UPSTREAM_REMOTE_ADDRESS":                       CommandUpstreamAddress,
}

// FormatSide says of what a [Format] is computed.
type FormatSide uint8

const (
	// OfRequest is before the request is sent: nothing is known of a response.
	OfRequest FormatSide = iota
	// OfResponse is when a response has arrived.
	OfResponse
)

// ParseFormat reads a text with command operators, by the syntax of Envoy's
// access logs: "%NAME%", "%NAME(ARGUMENTS)%", "%NAME(ARGUMENTS):LENGTH%", and
// "%%" for a percent sign. A text without any command gives one part. A command
// that is not supported is an error that lists those that are.
func ParseFormat(source string, side FormatSide) (*Format, error) {
	f := &Format{Source: source}
	var text strings.Builder
	rest := source
	for rest != "" {
		percent := strings.IndexByte(rest, '%')
		if percent < 0 {
			text.WriteString(rest)
			break
		}
		text.WriteString(rest[:percent])
		rest = rest[percent+1:]
		if after, ok := strings.CutPrefix(rest, "%"); ok {
			text.WriteByte('%')
			rest = after
			continue
		}
		part, after, err := parseCommand(rest, side)
		if err != nil {
			return nil, err // without the text, which may be a secret
		}
		if text.Len() > 0 {
			f.Parts = append(f.Parts, FormatPart{Text: text.String()})
			text.Reset()
		}
		f.Parts = append(f.Parts, part)
		rest = after
	}
	if text.Len() > 0 || len(f.Parts) == 0 {
		f.Parts = append(f.Parts, FormatPart{Text: text.String()})
	}
	return f, nil
}

// Literal returns the text of a format without commands.
func (f *Format) Literal() (text string, ok bool) {
	if len(f.Parts) == 1 && f.Parts[0].Command == CommandText {
		return f.Parts[0].Text, true
	}
	return "", false
}

var errNoCommand = errors.New(`"%" begins no command: write "%%" for a percent sign`)

// parseCommand reads a command behind its first percent sign.
func parseCommand(text string, side FormatSide) (part FormatPart, rest string, err error) {
	end := 0
	for end < len(text) && (text[end] == '_' || 'A' <= text[end] && text[end] <= 'Z' || '0' <= text[end] && text[end] <= '9') {
		end++
	}
	name, rest := text[:end], text[end:]
	if name == "" || rest == "" {
		return part, "", errNoCommand
	}
	arguments, hasArguments := "", rest[0] == '('
	if hasArguments {
		closing := strings.IndexByte(rest, ')')
		if closing < 0 {
			return part, "", fmt.Errorf(`command %s has no ")"`, name)
		}
		arguments, rest = rest[1:closing], rest[closing+1:]
	}
	if length, ok := strings.CutPrefix(rest, ":"); ok {
		digits, after, _ := strings.Cut(length, "%")
		n, err := strconv.ParseUint(digits, 10, 31)
		if err != nil || n == 0 {
			return part, "", fmt.Errorf("command %s: length %q is not a positive number", name, digits)
		}
		part.MaxLength, rest = int(n), "%"+after
	}
	rest, ok := strings.CutPrefix(rest, "%")
	if !ok {
		return part, "", errNoCommand
	}
	part.Command, ok = commandNames[name]
	switch {
	case !ok:
		return part, "", fmt.Errorf("command %s is not supported: use one of %s", name, strings.Join(commandsFor(side), ", "))
	case side == OfRequest && part.Command >= CommandResponseHeader:
		return part, "", fmt.Errorf("command %s is for responses only", name)
	}
	err = part.arguments(name, arguments, hasArguments)
	return part, rest, err
}

// arguments reads what stands between the parentheses of a command.
func (p *FormatPart) arguments(name, text string, given bool) error {
	switch p.Command {
	case CommandRequestHeader, CommandResponseHeader:
		first, second, _ := strings.Cut(text, "?")
		p.Name, p.Alternative = strings.ToLower(first), strings.ToLower(second)
		for _, header := range []string{p.Name, p.Alternative} {
			pseudo := strings.TrimPrefix(header, ":")
			if !httpguts.ValidHeaderFieldName(pseudo) && (header != "" || header == p.Name) {
				return fmt.Errorf("command %s: %q is not the name of a header", name, header)
			}
		}
		return nil
	case CommandQueryParameter:
		if text == "" {
			return fmt.Errorf("command %s needs the name of a parameter", name)
		}
		p.Name = text
		return nil
	case CommandStartTime:
		p.Text = text
		if text == "" {
			p.Text = defaultTimeLayout
		}
		return CheckTimeLayout(p.Text)
	}
	if given {
		return fmt.Errorf("command %s takes no arguments", name)
	}
	return nil
}

// commandsFor are the names that may be used on a side, sorted.
func commandsFor(side FormatSide) []string {
	var names []string
	for name, command := range commandNames {
		if side == OfResponse || command < CommandResponseHeader {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
