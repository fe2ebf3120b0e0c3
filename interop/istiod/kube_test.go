package istiod

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"testing"
)

// kube is as much of Kubernetes' API as istiod needs to start, and to review the
// tokens of workloads. It has two namespaces, and nothing else can be found there.
func kube(t *testing.T) (address string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch resource := path.Base(r.URL.Path); {
		case r.Method == http.MethodPost && resource == "tokenreviews":
			review(w, r)
		case r.Method != http.MethodGet:
			refuse(w, http.StatusForbidden)
		case r.URL.Path == "/version":
			answer(w, map[string]any{"major": "1", "minor": "33", "gitVersion": "v1.33.0"})
		case r.URL.Query().Get("watch") == "1" || r.URL.Query().Get("watch") == "true":
			watch(w, r, resource)
		case strings.Contains(r.URL.Path, "/namespaces/") && !strings.HasSuffix(resource, "s"):
			refuse(w, http.StatusNotFound)
		default:
			answer(w, map[string]any{"kind": "List", "apiVersion": "v1", "metadata": objectMeta(""), "items": objects(resource)})
		}
	}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.URL
}

func objectMeta(name string) map[string]any {
	m := map[string]any{"resourceVersion": "1"}
	if name != "" {
		m["name"] = name
	}
	return m
}

func objects(resource string) []any {
	if resource != "namespaces" {
		return []any{}
	}
	var list []any
	for _, name := range []string{"shop", "istio-system"} {
		list = append(list, map[string]any{"kind": "Namespace", "apiVersion": "v1", "metadata": objectMeta(name)})
	}
	return list
}

// watch sends what there is, and the mark that this was all of it, and stays silent.
func watch(w http.ResponseWriter, r *http.Request, resource string) {
	for _, object := range objects(resource) {
		answer(w, map[string]any{"type": "ADDED", "object": object})
	}
	if r.URL.Query().Get("sendInitialEvents") == "true" {
		end := objectMeta("")
		end["annotations"] = map[string]string{"k8s.io/initial-events-end": "true"}
		answer(w, map[string]any{"type": "BOOKMARK", "object": map[string]any{
			"kind": kindOf(r, resource), "apiVersion": versionOf(r), "metadata": end}})
	}
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

// kinds are those of the resources whose names are more than the kind in lower case with an s.
var kinds = map[string]string{
	"configmaps": "ConfigMap", "endpointslices": "EndpointSlice", "customresourcedefinitions": "CustomResourceDefinition",
	"mutatingwebhookconfigurations": "MutatingWebhookConfiguration", "validatingwebhookconfigurations": "ValidatingWebhookConfiguration",
}

// kindOf is the kind that a watcher expects.
func kindOf(r *http.Request, resource string) string {
	if strings.Contains(r.Header.Get("Accept"), "as=PartialObjectMetadata") {
		return "PartialObjectMetadata"
	}
	if kind, ok := kinds[resource]; ok {
		return kind
	}
	one := strings.TrimSuffix(resource, "s")
	return strings.ToUpper(one[:1]) + one[1:]
}

// versionOf is the API version that a path is of: /api/v1/... or /apis/GROUP/VERSION/...
func versionOf(r *http.Request) string {
	if kindOf(r, "x") == "PartialObjectMetadata" {
		return "meta.k8s.io/v1"
	}
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if parts[0] == "apis" && len(parts) > 2 {
		return parts[1] + "/" + parts[2]
	}
	return "v1"
}

// review takes any token for what it says that its subject is.
func review(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Spec struct {
			Token     string
			Audiences []string
		}
	}
	var claims struct{ Sub string }
	if json.NewDecoder(r.Body).Decode(&asked) == nil {
		if parts := strings.Split(asked.Spec.Token, "."); len(parts) == 3 {
			if payload, err := base64.RawURLEncoding.DecodeString(parts[1]); err == nil {
				_ = json.Unmarshal(payload, &claims) // without a subject it is refused below
			}
		}
	}
	status := map[string]any{"authenticated": false}
	if claims.Sub != "" {
		status = map[string]any{"authenticated": true, "audiences": asked.Spec.Audiences,
			"user": map[string]any{"username": claims.Sub, "groups": []string{"system:serviceaccounts"}}}
	}
	w.WriteHeader(http.StatusCreated)
	answer(w, map[string]any{"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "status": status})
}

func refuse(w http.ResponseWriter, code int) {
	w.WriteHeader(code)
	answer(w, map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
		"reason": strings.ReplaceAll(http.StatusText(code), " ", "")})
}

func answer(w http.ResponseWriter, v any) { _ = json.NewEncoder(w).Encode(v) }

// token is one that review takes; nobody signed it.
func token(namespace, account string) string {
	encode := base64.RawURLEncoding.EncodeToString
	claims, _ := json.Marshal(map[string]any{
		"iss": "kubernetes/serviceaccount", "aud": []string{"istio-ca"}, "exp": 4102444800,
		"sub": "system:serviceaccount:" + namespace + ":" + account,
	})
	return encode([]byte(`{"alg":"none"}`)) + "." + encode(claims) + "." + encode([]byte("unsigned"))
}
