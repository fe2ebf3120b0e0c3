package ask

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
)

// Recorded is a request of a file of recorded ones.
type Recorded struct {
	Request

	// Line is where it is in the file for the first time, Count how often it is
	// there.
	Line  int `json:"line"`
	Count int `json:"count"`
}

// maxLine bounds a line of a file of requests.
const maxLine = 1 << 20

// Read reads recorded requests, each a JSON object on a line of its own: those of
// an access log. Fields that are not known are ignored, and empty lines too. Equal
// requests are one, in the place of the first. skipped are the numbers of the lines that
// have no request: Envoy writes null or "-" for the method, the authority or the path of
// a connection, and of what it could not read. The error has the number of the line.
//
//   - "method": the HTTP method, or "/package.Service/Method" of gRPC;
//   - "url", or "host" (also "authority", ":authority") with "path", "query" and
//     "scheme", which is "http" if it is missing;
//   - "headers": an object whose values are texts or lists of texts;
//   - "grpc": true for gRPC. It is also known by a method of gRPC, by "protocol":
//     "grpc", by a "grpc_status" and by the content type among the headers.
func Read(from io.Reader) (all []Recorded, skipped []int, err error) {
	index := make(map[string]int)
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, maxLine)
	number := 0
	for lines.Scan() {
		number++
		if strings.TrimSpace(lines.Text()) == "" {
			continue
		}
		req, err := parseLine(lines.Bytes())
		if errors.Is(err, errNoRequest) {
			skipped = append(skipped, number)
			continue
		}
		if err != nil {
			return nil, nil, fmt.Errorf("line %d: %w", number, err)
		}
		key, err := json.Marshal(req)
		if err != nil {
			return nil, nil, fmt.Errorf("line %d: %w", number, err)
		}
		if i, ok := index[string(key)]; ok {
			all[i].Count++
			continue
		}
		index[string(key)] = len(all)
		all = append(all, Recorded{Request: *req, Line: number, Count: 1})
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return nil, nil, fmt.Errorf("line %d: longer than %d bytes: write one JSON object on each line", number+1, maxLine)
	} else if err != nil {
		return nil, nil, err
	}
	return all, skipped, nil
}

// line is a line of a file of requests. Pointers tell what is there.
type line struct {
	Method          text               `json:"method"`
	URL             text               `json:"url"`
	Host            text               `json:"host"`
	Authority       text               `json:"authority"`
	PseudoAuthority text               `json:":authority"`
	Path            text               `json:"path"`
	Query           string             `json:"query"`
	Scheme          text               `json:"scheme"`
	Headers         map[string]textOrs `json:"headers"`
	GRPC            bool               `json:"grpc"`
	Protocol        string             `json:"protocol"`
	GRPCStatus      any                `json:"grpc_status"`
}

// errNoRequest is what there is to say of a line without a request.
var errNoRequest = errors.New("it has no request")

// text is a text of an access log.
type text struct {
	string

	// none tells that the log has the field, and says that there was no such thing.
	none bool
}

func (t *text) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		t.none = true
		return nil
	}
	if err := json.Unmarshal(data, &t.string); err != nil {
		return errors.New("the method and each part of the URL is a text")
	}
	if t.string == "-" {
		t.string, t.none = "", true
	}
	return nil
}

// textOrs is a text, or a list of texts.
type textOrs []string

func (t *textOrs) UnmarshalJSON(data []byte) error {
	var one string
	if err := json.Unmarshal(data, &one); err == nil {
		*t = textOrs{one}
		return nil
	}
	var several []string
	if err := json.Unmarshal(data, &several); err != nil {
		return errors.New("the value of a header is a text, or a list of texts")
	}
	*t = several
	return nil
}

func parseLine(data []byte) (*Request, error) {
	var l line
	if err := json.Unmarshal(data, &l); err != nil {
		return nil, fmt.Errorf("no JSON object with a request: %w", err)
	}
	if l.Method.none {
		return nil, errNoRequest
	}
	req := &Request{Method: l.Method.string, URL: l.URL.string, GRPC: l.isGRPC()}
	for name, values := range l.Headers {
		if req.Header == nil {
			req.Header = make(map[string][]string, len(l.Headers))
		}
		req.Header[name] = values
	}
	if req.URL == "" {
		host := l.Host
		for _, other := range []text{l.Authority, l.PseudoAuthority} {
			if host.string == "" {
				host = text{other.string, host.none || other.none}
			}
		}
		if l.Path.none || host.string == "" && (host.none || l.URL.none) {
			return nil, errNoRequest
		}
		if host.string == "" {
			return nil, errors.New(`there is neither "url" nor "host": write {"method": "GET", "host": "payment.shop:8080", "path": "/"}`)
		}
		scheme := "http"
		if l.Scheme.string != "" {
			scheme = l.Scheme.string
		}
		if path := l.Path.string; path != "" && path[0] != '/' {
			return nil, fmt.Errorf("path %q does not begin with a slash", path)
		}
		req.URL = scheme + "://" + host.string + l.Path.string
		if l.Query != "" {
			req.URL += "?" + strings.TrimPrefix(l.Query, "?")
		}
	}
	if req.Method == "" {
		req.Method = http.MethodGet
		if req.GRPC {
			req.Method = http.MethodPost
		}
	}
	return req, nil
}

func (l *line) isGRPC() bool {
	if l.GRPC || strings.EqualFold(l.Protocol, "grpc") || strings.HasPrefix(l.Method.string, "/") {
		return true
	}
	if l.GRPCStatus != nil && !slices.Contains([]any{"", "-"}, l.GRPCStatus) {
		return true
	}
	for name, values := range l.Headers {
		if strings.EqualFold(name, "content-type") && len(values) > 0 && strings.HasPrefix(values[0], "application/grpc") {
			return true
		}
	}
	return false
}
