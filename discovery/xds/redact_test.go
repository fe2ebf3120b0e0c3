package xds

import (
	"bytes"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/inboardmesh/inboard/discovery/xds/internal/decode"
)

const secretText = "s3cret"

func sensitiveSecret() *tlsv3.Secret {
	return &tlsv3.Secret{Name: "default", Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
		PrivateKey: &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: []byte(secretText)}},
	}}}
}

func nest(m proto.Message, depth int) *anypb.Any {
	packed, err := anypb.New(m)
	for range depth {
		if err != nil {
			panic(err)
		}
		packed, err = anypb.New(packed)
	}
	return packed
}

func TestWhatIsSecretIsNotShownHoweverDeepItIs(t *testing.T) {
	t.Parallel()
	for _, depth := range []int{0, 1, 10, 200} {
		listener := &listenerv3.Listener{Name: "l", FilterChains: []*listenerv3.FilterChain{{
			TransportSocket: &corev3.TransportSocket{ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: nest(sensitiveSecret(), depth)}},
		}}}
		raw, err := proto.Marshal(listener)
		if err != nil {
			t.Fatal(err)
		}
		shown := redacted(decode.ListenerURL, raw)
		if bytes.Contains(shown.GetValue(), []byte(secretText)) {
			t.Errorf("depth %d: the secret is shown", depth)
		}
		if !bytes.Contains(shown.GetValue(), []byte("l")) {
			t.Errorf("depth %d: nothing is shown", depth)
		}
	}
}

func TestTheKeysOfAnIssuerOfTokensAreNotShown(t *testing.T) {
	t.Parallel()
	for name, keys := range map[string]*corev3.DataSource{
		"a text": {Specifier: &corev3.DataSource_InlineString{InlineString: `{"keys":[{"kty":"oct","k":"` + secretText + `"}]}`}},
		"bytes":  {Specifier: &corev3.DataSource_InlineBytes{InlineBytes: []byte(`{"keys":[{"kty":"oct","k":"` + secretText + `"}]}`)}},
	} {
		packed := nest(&jwtv3.JwtAuthentication{Providers: map[string]*jwtv3.JwtProvider{
			"p": {Issuer: "somebody", JwksSourceSpecifier: &jwtv3.JwtProvider_LocalJwks{LocalJwks: keys}},
		}}, 0)
		shown := redacted(packed.GetTypeUrl(), packed.GetValue()).GetValue()
		if bytes.Contains(shown, []byte(secretText)) || !bytes.Contains(shown, []byte(hidden)) || !bytes.Contains(shown, []byte("somebody")) {
			t.Errorf("%s: shown as %q", name, shown)
		}
	}
}

func TestWhatCannotBeReadIsNotShown(t *testing.T) {
	t.Parallel()
	unknown := &listenerv3.Listener{Name: "l", FilterChains: []*listenerv3.FilterChain{{
		TransportSocket: &corev3.TransportSocket{ConfigType: &corev3.TransportSocket_TypedConfig{
			TypedConfig: &anypb.Any{TypeUrl: "type.googleapis.com/nobody.Knows", Value: []byte(secretText)},
		}},
	}}}
	unknown.ProtoReflect().SetUnknown(append([]byte{0x9a, 0xf6, 0x01, byte(len(secretText))}, secretText...))
	raw, err := proto.Marshal(unknown)
	if err != nil {
		t.Fatal(err)
	}
	for name, shown := range map[string]*anypb.Any{
		"a type that is not known":  redacted(decode.ListenerURL, raw),
		"bytes that are no message": redacted(decode.ListenerURL, []byte("\xff"+secretText)),
		"an unknown resource type":  redacted("type.googleapis.com/nobody.Knows", []byte(secretText)),
	} {
		if bytes.Contains(shown.GetValue(), []byte(secretText)) {
			t.Errorf("%s: %q", name, shown.GetValue())
		}
	}
}

func FuzzRedacted(f *testing.F) {
	for _, m := range []proto.Message{
		sensitiveSecret(), &listenerv3.Listener{Name: "l"}, nest(sensitiveSecret(), 3),
		&corev3.HeaderValue{Key: "authorization", Value: secretText},
	} {
		packed := nest(m, 0)
		f.Add(strings.TrimPrefix(packed.GetTypeUrl(), "type.googleapis.com/"), packed.GetValue())
	}
	f.Fuzz(func(t *testing.T, name string, raw []byte) {
		typeURL := "type.googleapis.com/" + name
		shown := redacted(typeURL, raw)
		if shown.GetTypeUrl() != typeURL {
			t.Fatalf("type %q", shown.GetTypeUrl())
		}
		again := redacted(typeURL, bytes.Clone(shown.GetValue()))
		if !bytes.Equal(again.GetValue(), shown.GetValue()) {
			t.Fatalf("%q is redacted to %q and that to %q", raw, shown.GetValue(), again.GetValue())
		}
	})
}
