package decode

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	"google.golang.org/protobuf/proto"
)

var update = flag.Bool("update", false, "rewrite the tables of docs/envoy-fields.md")

const fieldPage = "../../../../docs/envoy-fields.md"

// pageMessages are the messages whose fields the page lists.
var pageMessages = []proto.Message{
	(*routev3.RouteConfiguration)(nil), (*routev3.VirtualHost)(nil), (*routev3.Route)(nil), (*routev3.RouteMatch)(nil),
	(*routev3.HeaderMatcher)(nil), (*routev3.QueryParameterMatcher)(nil), (*routev3.CookieMatcher)(nil),
	(*routev3.RouteAction)(nil), (*routev3.RouteAction_MaxStreamDuration)(nil), (*routev3.RouteAction_RequestMirrorPolicy)(nil),
	(*routev3.RouteAction_HashPolicy)(nil), (*routev3.InternalRedirectPolicy)(nil), (*routev3.RetryPolicy)(nil), (*routev3.HedgePolicy)(nil),
	(*routev3.WeightedCluster)(nil), (*routev3.WeightedCluster_ClusterWeight)(nil),
	(*routev3.RedirectAction)(nil), (*routev3.DirectResponseAction)(nil),
	(*faultv3.HTTPFault)(nil), (*corsv3.CorsPolicy)(nil),
}

// pageRow finds the reason in a row of the page.
var pageRow = regexp.MustCompile("(?m)^\\| `([\\w.]+)` \\| [^|]* \\| ([^|]*) \\|$")

// TestThePageOfFieldsIsComplete holds the page against the descriptors of the
// protobufs and against what the decoder does. The reason of a field that is refused
// is the one that a NACK gives; those of fields that change nothing are the page's.
func TestThePageOfFieldsIsComplete(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile(fieldPage)
	if err != nil {
		t.Fatal(err)
	}
	head, _, found := strings.Cut(string(content), "\n## ")
	if !found && !*update {
		t.Fatalf("%s has no tables", fieldPage)
	}
	reasons := make(map[string]string)
	for _, m := range pageRow.FindAllStringSubmatch(string(content), -1) {
		reasons[m[1]] = m[2]
	}
	var page strings.Builder
	page.WriteString(strings.TrimRight(head, "\n") + "\n")
	for _, m := range pageMessages {
		descriptor := m.ProtoReflect().Descriptor()
		uses := supportedFields().of(descriptor)
		fmt.Fprintf(&page, "\n## %s\n\n| field | | why |\n|---|---|---|\n", strings.TrimPrefix(string(descriptor.FullName()), "envoy."))
		for i := range descriptor.Fields().Len() {
			field := string(descriptor.Fields().Get(i).Name())
			key := string(descriptor.Name()) + "." + field
			use, reason := "done", reasons[key]
			switch uses.of(i) {
			case unsupported:
				use, reason = "refused", uses.instead[field]
			case zeroField:
				use = "only zero"
			case harmlessField:
				use = "no effect"
			case readField:
			}
			if use != "done" && reason == "" {
				t.Errorf("%s: %s needs a reason", key, use)
			}
			fmt.Fprintf(&page, "| `%s` | %s | %s |\n", key, use, reason)
		}
	}
	if page.String() == string(content) {
		return
	}
	if !*update {
		t.Fatalf("%s is not what the decoder does: run go test ./discovery/xds/internal/decode -run %s -update", fieldPage, t.Name())
	}
	if err := os.WriteFile(fieldPage, []byte(page.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}
