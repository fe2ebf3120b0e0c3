package cors

import (
	"fmt"
	"strings"
	"testing"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/internal/route"
)

// headers is a HeaderMap by lower-case names.
type headers map[string][]string

var _ route.HeaderMap = headers(nil)

func (h headers) Values(name string) []string { return h[name] }
func (h headers) Set(name, value string)      { h[name] = []string{value} }
func (h headers) Add(name, value string)      { h[name] = append(h[name], value) }
func (h headers) Del(name string)             { delete(h, name) }

func TestCORS(t *testing.T) {
	t.Parallel()
	const million = 1_000_000
	policy := func(edit ...func(*discovery.CORS)) *discovery.CORS {
		c := &discovery.CORS{
			PerMillion:   million,
			AllowOrigins: []discovery.StringMatch{{Value: "https://shop.example"}, {Kind: discovery.MatchSuffix, Value: ".shop.example"}},
			AllowMethods: "GET,PUT", AllowHeaders: "x-user", ExposeHeaders: "x-total", MaxAge: "60", AllowCredentials: true,
		}
		for _, e := range edit {
			e(c)
		}
		return c
	}
	asked := func(origin string, more ...string) headers {
		h := headers{"origin": {origin}, "access-control-request-method": {"PUT"}}
		for i := 0; i < len(more); i += 2 {
			h.Set(more[i], more[i+1])
		}
		return h
	}
	const (
		shop    = "https://shop.example"
		allowed = "allow-origin=https://shop.example allow-credentials=true allow-methods=GET,PUT allow-headers=x-user max-age=60"
		marked  = "allow-origin=https://shop.example allow-credentials=true expose-headers=x-total"
	)
	tests := []struct {
		name    string
		policy  *discovery.CORS
		method  string
		headers headers
		answer  string // "" if the request goes on; "200" without a header
		marks   string // on the response of a request that goes on
	}{
		{name: "a preflight", policy: policy(), method: "OPTIONS", headers: asked(shop), answer: "200 " + allowed},
		{name: "a preflight of an origin that is not allowed goes on", policy: policy(), method: "OPTIONS", headers: asked("https://evil.example")},
		{
			name:   "a preflight of an origin that is not allowed is stopped",
			policy: policy(func(c *discovery.CORS) { c.StopUnmatched = true }), method: "OPTIONS", headers: asked("https://evil.example"), answer: "200",
		},
		{
			name:   "a preflight for a private network",
			policy: policy(func(c *discovery.CORS) { c.AllowPrivateNetwork = true }), method: "OPTIONS",
			headers: asked(shop, "access-control-request-private-network", "true"), answer: "200 " + allowed + " allow-private-network=true",
		},
		{name: "a private network that is not allowed", policy: policy(), method: "OPTIONS", headers: asked(shop, "access-control-request-private-network", "true"), answer: "200 " + allowed},
		{name: "OPTIONS that is no preflight", policy: policy(), method: "OPTIONS", headers: headers{"origin": {shop}}, marks: marked},
		{name: "a request", policy: policy(), method: "GET", headers: headers{"origin": {shop}}, marks: marked},
		{name: "a request of an origin that is not allowed", policy: policy(), method: "GET", headers: headers{"origin": {"https://evil.example"}}},
		{name: "an origin that only begins so", policy: policy(), method: "GET", headers: headers{"origin": {shop + ".evil.example"}}},
		{name: "no origin", policy: policy(), method: "OPTIONS", headers: headers{"access-control-request-method": {"PUT"}}},
		{
			name: "any origin", policy: policy(func(c *discovery.CORS) {
				c.AllowOrigins, c.AllowCredentials = []discovery.StringMatch{{Value: "*"}}, false
			}),
			method: "GET", headers: headers{"origin": {shop}}, marks: "allow-origin=https://shop.example expose-headers=x-total",
		},
		{name: "no policy", policy: &discovery.CORS{}, method: "OPTIONS", headers: asked(shop)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			x := &filter.Exchange{Request: route.Request{Method: tt.method, Header: tt.headers}}
			answer, err := New(tt.policy).Request(t.Context(), x)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if answer != nil {
				got = fmt.Sprint(answer.Status)
				for _, h := range answer.Headers {
					got += " " + strings.TrimPrefix(h.Name, "access-control-") + "=" + h.Value
				}
			}
			if got != tt.answer {
				t.Errorf("answer %q, want %q", got, tt.answer)
			}
			response := make(headers)
			x.Response(200, response)
			var marks []string
			for _, name := range []string{"allow-origin", "allow-credentials", "expose-headers"} {
				for _, value := range response["access-control-"+name] {
					marks = append(marks, name+"="+value)
				}
			}
			if got := strings.Join(marks, " "); got != tt.marks {
				t.Errorf("marks %q, want %q", got, tt.marks)
			}
		})
	}
}
