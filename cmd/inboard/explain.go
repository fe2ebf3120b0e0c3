package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/controlplane"
	"github.com/inboardmesh/inboard/internal/ask"
	"github.com/inboardmesh/inboard/internal/offline"
	"github.com/inboardmesh/inboard/mesh"
)

// askTime bounds the wait for a process that is asked.
const askTime = 15 * time.Second

func explain(ctx context.Context, call *invocation) (err error) {
	f := call.flags("METHOD URL", `Says where a request would go, and why: virtual host, the routes that do not
match, each with the reason, the one that does, its cluster, endpoints, timeouts,
retries, filters and limits. Nothing is sent to an endpoint. It asks a process that
runs and mounts the handler of package admin (--admin), or the YAML in a directory
(--config), without a network. A gRPC call is

    inboard explain --grpc /package.Service/Method mesh:///HOST:PORT`)
	var headers list
	f.Var(&headers, "H", "`HEADER` of the request, as \"NAME: VALUE\"; repeatable")
	grpc := f.Bool("grpc", false, "it is a gRPC call")
	admin := f.String("admin", "", "`URL` of the handler of a process, as http://127.0.0.1:15021")
	config := f.String("config", "", "directory `DIR` of Istio YAML")
	node := f.node()
	output := f.output()
	if err := f.parse(); err != nil {
		return err
	}
	req := &ask.Request{Method: f.Arg(0), URL: f.Arg(1), GRPC: *grpc}
	for _, header := range headers {
		if err := req.Add(header); err != nil {
			return usagef("-H: %v", err)
		}
	}
	var explanation *mesh.Explanation
	switch {
	case (*admin == "") == (*config == ""):
		return usagef("give either --admin, to ask a process, or --config, to ask a directory")
	case *admin != "":
		if set := f.firstSet("namespace", "labels", "locality", "root-namespace"); set != "" {
			return usagef("--%s goes with --config: a process that is asked knows who it is", set)
		}
		explanation, err = askProcess(ctx, *admin, req)
	default:
		explanation, err = askDir(ctx, *config, node, req)
	}
	if err != nil {
		return err
	}
	if *output == outputJSON {
		if _, err := call.stdout.Write(explanation.JSON()); err != nil {
			return err
		}
	} else {
		fmt.Fprint(call.stdout, explanation)
	}
	if explanation.Verdict == mesh.VerdictNoConfig {
		return errors.New(explanation.Reason)
	}
	return nil
}

// namespaceFormat is what Kubernetes takes as the name of a namespace.
var namespaceFormat = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

func isNamespace(name string) bool { return namespaceFormat.MatchString(name) }

// nodeFlags say who calls.
type nodeFlags struct {
	offline.Node

	labels   list
	locality string
}

// node adds the flags that say who calls.
func (f *flags) node() *nodeFlags {
	n := new(nodeFlags)
	f.StringVar(&n.Namespace, "namespace", "", "the `NAMESPACE` of the caller, for whom the YAML of a directory is read")
	f.Var(&n.labels, "labels", "labels of the caller, as `KEY=VALUE,...`; repeatable")
	f.StringVar(&n.locality, "locality", "", "where the caller runs, as `REGION/ZONE/SUBZONE`; the latter two may be left out")
	f.StringVar(&n.RootNamespace, "root-namespace", "istio-system", "the `NAMESPACE` of mesh-wide policies")
	return n
}

// open reads a directory for the caller.
func (n *nodeFlags) open(dir string) (*offline.Mesh, error) {
	n.Labels = make(map[string]string)
	for pair := range strings.SplitSeq(n.labels.String(), ",") {
		if pair == "" {
			continue
		}
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return nil, usagef("--labels %q: write it like app=payment", pair)
		}
		n.Labels[key] = value
	}
	if n.locality != "" {
		parts, err := localityOf(n.locality)
		if err != nil {
			return nil, err
		}
		n.Locality = balancer.Locality{Region: parts[0], Zone: parts[1], SubZone: parts[2]}
	}
	for _, one := range []struct{ flag, value string }{{"namespace", n.Namespace}, {"root-namespace", n.RootNamespace}} {
		if one.value != "" && !isNamespace(one.value) {
			return nil, usagef("--%s %q is not a namespace: use lower case letters, digits and '-', at most 63", one.flag, one.value)
		}
	}
	files, err := controlplane.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	node := n.Node
	node.Source = dir
	m, err := offline.New(files, node)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return m, nil
}

func askDir(ctx context.Context, dir string, node *nodeFlags, req *ask.Request) (_ *mesh.Explanation, err error) {
	m, err := node.open(dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	e, err := m.Explain(ctx, req)
	if err != nil { // nobody could make such a request
		return nil, usagef("%v", err)
	}
	return e, nil
}

// askProcess asks the handler of package admin.
func askProcess(ctx context.Context, admin string, question *ask.Request) (*mesh.Explanation, error) {
	u, err := url.Parse(admin)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, usagef("--admin %q is no URL: write it like http://127.0.0.1:15021", admin)
	}
	body, err := json.Marshal(question)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.JoinPath("explain").String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := new(http.Client).Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w: does the process run, and does it mount the handler of package admin there?", err)
	}
	defer resp.Body.Close()
	const most = 64 << 20
	answer, err := io.ReadAll(io.LimitReader(resp.Body, most))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", u, err)
	}
	if resp.StatusCode != http.StatusOK {
		var failure struct {
			Error string `json:"error"`
		}
		if json.Unmarshal(answer, &failure) == nil && failure.Error != "" {
			if resp.StatusCode == http.StatusBadRequest {
				return nil, usagef("%s", failure.Error)
			}
			return nil, errors.New(failure.Error)
		}
		return nil, fmt.Errorf("%s answers %s: is it the handler of package admin?", u, resp.Status)
	}
	var explanation mesh.Explanation
	if err := json.Unmarshal(answer, &explanation); err != nil {
		return nil, fmt.Errorf("%s answers with no explanation: %w: is it the handler of package admin?", u, err)
	}
	return &explanation, nil
}
