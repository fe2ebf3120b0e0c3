package mesh_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/internal/worldtest"
	"github.com/inboardmesh/inboard/mesh"
)

// tokenFileOf is the file that both the stream and the CA's client read.
func tokenFileOf(t *testing.T, config *bootstrap.Config) string {
	t.Helper()
	var creds struct {
		File string `json:"jwt_token_file"`
	}
	if err := json.Unmarshal(config.Servers[0].CallCreds[0].Config, &creds); err != nil {
		t.Fatal(err)
	}
	return creds.File
}

// presenting adds the workload's own certificate to the channel credentials.
func presenting(t *testing.T, config *bootstrap.Config) *bootstrap.Config {
	t.Helper()
	var creds map[string]string
	if err := json.Unmarshal(config.Servers[0].ChannelCreds.Config, &creds); err != nil {
		t.Fatal(err)
	}
	creds["certificate_provider_instance"] = "default"
	text, err := json.Marshal(creds)
	if err != nil {
		t.Fatal(err)
	}
	config.Servers[0].ChannelCreds.Config = text
	return config
}

func TestStreamReopensByCertificateWhenTheTokenHasExpired(t *testing.T) {
	t.Parallel()
	w := worldtest.New(t, "")
	payment := w.Payment("v1-a", map[string]string{"app": "payment"})
	config := presenting(t, w.Bootstrap("shop", "customer", nil))
	customer := w.Join("shop", "customer", nil, mesh.WithBootstrap(config))
	expired := "e30." + base64.RawURLEncoding.EncodeToString([]byte(`{"exp":1}`)) + ".c2ln"
	if err := os.WriteFile(tokenFileOf(t, config), []byte(expired), 0o600); err != nil {
		t.Fatal(err)
	}
	w.StopControlPlane()
	w.StartControlPlane()
	w.Apply(services(payment)) // unknown to whoever was connected before

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+paymentHost+":80/charge", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := customer.HTTPClient().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(body), "spiffe://cluster.local/ns/shop/sa/customer") {
		t.Errorf("got %d, %s", resp.StatusCode, body)
	}
}
