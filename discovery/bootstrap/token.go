package bootstrap

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/internal/regularfile"
)

// parseToken reads the configuration of "jwt_token_file".
func parseToken(found *problems, path string, config json.RawMessage) string {
	o, ok := readObject(found, path, config)
	if !ok {
		return ""
	}
	o.only("jwt_token_file")
	return o.required("jwt_token_file", "the path of a file with a JSON web token")
}

// tokenFile sends the JSON web token of a file with each stream (gRFC A97).
// The file is read for each stream, so a rotated token is used before the old
// one expires, and nothing is cached; a stream to a control plane is opened at
// most once a second.
type tokenFile struct{ path string }

var _ credentials.PerRPCCredentials = (*tokenFile)(nil)

// GetRequestMetadata returns the authorization header. As gRFC A97 says, a
// file that cannot be read is UNAVAILABLE, and one without a valid token is
// UNAUTHENTICATED. On a connection on which the workload presented its own
// certificate, which renews itself, neither is a reason to fail: the certificate
// is the proof, and no header is sent.
func (t *tokenFile) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	info, _ := credentials.RequestInfoFromContext(ctx)
	if err := credentials.CheckSecurityLevel(info.AuthInfo, credentials.PrivacyAndIntegrity); err != nil {
		return nil, status.Errorf(codes.Unauthenticated, "token file %q: not sent on an insecure connection: %v", t.path, err)
	}
	token, err := t.read()
	if err != nil {
		if _, ok := info.AuthInfo.(presented); ok {
			return nil, nil
		}
		return nil, err
	}
	return map[string]string{"authorization": "Bearer " + token}, nil
}

// read returns a token that has not expired. Its errors have a status.
func (t *tokenFile) read() (string, error) {
	data, err := regularfile.Read(t.path, regularfile.MaxToken)
	if err != nil {
		return "", status.Errorf(codes.Unavailable, "token file: %v", err)
	}
	token := strings.TrimSpace(string(data))
	expiry, ok := tokenExpiry(token)
	if !ok {
		return "", status.Errorf(codes.Unauthenticated, "token file %q: not a JSON web token with an expiry", t.path)
	}
	if !time.Now().Before(expiry) {
		return "", status.Errorf(codes.Unauthenticated, "token file %q: the token expired at %s and was not replaced",
			t.path, expiry.UTC().Format(time.RFC3339))
	}
	return token, nil
}

// RequireTransportSecurity lets gRPC refuse the token on a plaintext channel.
func (t *tokenFile) RequireTransportSecurity() bool { return true }

// tokenExpiry returns the time in a token's "exp" claim. The server verifies
// the token.
func tokenExpiry(token string) (time.Time, bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return time.Time{}, false
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return time.Time{}, false
	}
	var claims struct {
		Expiry float64 `json:"exp"`
	}
	if json.Unmarshal(payload, &claims) != nil || claims.Expiry <= 0 || claims.Expiry > 1<<40 {
		return time.Time{}, false
	}
	return time.Unix(int64(claims.Expiry), 0), true
}
