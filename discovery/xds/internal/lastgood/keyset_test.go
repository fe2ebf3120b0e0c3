package lastgood

import (
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// withKeySet is a listener at which the tokens of an issuer with these keys are good.
func withKeySet(t testing.TB, keys *corev3.DataSource) []byte {
	t.Helper()
	pack := func(m proto.Message) *anypb.Any {
		packed, err := anypb.New(m)
		if err != nil {
			t.Fatal(err)
		}
		return packed
	}
	value, err := proto.Marshal(&listenerv3.Listener{Name: "l", FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{{
		ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(&hcmv3.HttpConnectionManager{HttpFilters: []*hcmv3.HttpFilter{{
			ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: pack(&jwtv3.JwtAuthentication{Providers: map[string]*jwtv3.JwtProvider{
				"p": {JwksSourceSpecifier: &jwtv3.JwtProvider_LocalJwks{LocalJwks: keys}},
			}})},
		}}})},
	}}}}})
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func inlineKeys(text string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: text}}
}

const (
	symmetricKeys = `{"keys":[{"kty":"oct","k":"cGxhbnRlZA"}]}`
	publicKeys    = `{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}]}`
)

func TestAListenerIsKeptWithPublicKeysOnly(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		keys *corev3.DataSource
		want bool // whether it holds a secret
	}{
		{"public keys", inlineKeys(publicKeys), false},
		{"public keys as bytes", &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: []byte(publicKeys)}}, false},
		{"a symmetric key", inlineKeys(symmetricKeys), true},
		{"a symmetric key as bytes", &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: []byte(symmetricKeys)}}, true},
		{"a private key", inlineKeys(`{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA","d":"AA"}]}`), true},
		{"what cannot be read", inlineKeys(`{"keys":`), true},
		{"the path of a file", &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: "/keys"}}, false},
		{"nothing", &corev3.DataSource{}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := new(secrets).holds("type.googleapis.com/envoy.config.listener.v3.Listener", withKeySet(t, tt.keys)); got != tt.want {
				t.Errorf("holds a secret: %v, want %v", got, tt.want)
			}
		})
	}
}
