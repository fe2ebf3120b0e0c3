package istio

import (
	"errors"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	mesh "istio.io/api/mesh/v1alpha1"
)

const (
	kindConfigMap = "ConfigMap"
	// meshConfigMap is the ConfigMap in which Istio has its mesh configuration, as
	// a text in the entry meshConfigEntry.
	meshConfigMap   = "istio"
	meshConfigEntry = "mesh"
)

// meshConfig decodes the mesh configuration in a ConfigMap. It is a document in a
// document: what is wrong in it is reported with its line in the file.
func (d *decoder) meshConfig(fields fieldList, whole at) {
	config := new(mesh.MeshConfig)
	d.obj.spec = config
	if d.obj.name != meshConfigMap {
		whole.field("metadata").field("name").errorf("%q is not read: only the ConfigMap %q is, which has the configuration of the mesh; remove the document", d.obj.name, meshConfigMap)
		return
	}
	for _, f := range fields {
		switch f.name {
		case "apiVersion", "kind", "metadata", "data":
		default:
			whole.field(f.name).refuse("unknown field")
		}
	}
	data, ok := fields.get("data")
	if !ok || isNull(data.value) {
		whole.field("data").errorf("is required: the entry %q has the configuration of the mesh", meshConfigEntry)
		return
	}
	a := whole.field("data")
	entries, ok := d.mapping(data.value, a)
	if !ok {
		return
	}
	for _, e := range entries {
		if e.name != meshConfigEntry && !d.noNetworks(e, a) {
			// Networks and values of the sidecar injector would change what is served.
			a.field(e.name).refuse("is not supported: only %q is read, remove it", meshConfigEntry)
		}
	}
	entry, ok := entries.get(meshConfigEntry)
	if !ok {
		a.field(meshConfigEntry).errorf("is required: it has the configuration of the mesh")
		return
	}
	a = a.field(meshConfigEntry)
	text, ok := d.text(entry.value, a)
	if !ok {
		return
	}
	if inner := d.inner(entry.value, text, a); inner != nil {
		d.message(inner, config.ProtoReflect(), a)
	}
}

// noNetworks reports whether an entry is that of the networks, without any: so Istio
// installs it.
func (d *decoder) noNetworks(e namedNode, a at) bool {
	text := textOf(e.value)
	if e.name != "meshNetworks" || text == "" {
		return e.name == "meshNetworks" && e.value.ShortTag() == "!!str"
	}
	inner := d.inner(e.value, text, a.field(e.name))
	networks := child(inner, "networks")
	return inner == nil || len(inner.Content) == 0 ||
		networks != nil && len(inner.Content) == 2 && (isNull(networks) || networks.Kind == yaml.MappingNode && len(networks.Content) == 0)
}

// inner parses the YAML in a text; nil if there is none, or with a problem.
func (d *decoder) inner(n *yaml.Node, text string, a at) *yaml.Node {
	decoder := yaml.NewDecoder(strings.NewReader(text))
	var document, more yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		a.errorf("not valid YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
		return nil
	}
	if err := decoder.Decode(&more); !errors.Is(err, io.EOF) {
		a.errorf("must be one document")
		return nil
	}
	if len(document.Content) != 1 || isNull(document.Content[0]) {
		return nil
	}
	moveTo(document.Content[0], n)
	return document.Content[0]
}

// moveTo gives the nodes in a text the lines that they have in the file. Their
// columns are not known: how far the text is indented is not.
func moveTo(n, text *yaml.Node) {
	if text.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		n.Line += text.Line
	} else {
		n.Line = text.Line
	}
	n.Column = 0
	for _, child := range n.Content {
		moveTo(child, text)
	}
}

// applyMesh takes over what the documents say of the mesh, where the options say
// nothing else. The place of the providers is returned with them.
func applyMesh(rep *reporter, objects []*object, opts *Options) (*mesh.MeshConfig, at) {
	config, where := (*mesh.MeshConfig)(nil), at{}
	for _, o := range objects {
		m, ok := o.spec.(*mesh.MeshConfig)
		if !ok || o.name != meshConfigMap {
			continue
		}
		a := at{rep: rep, obj: o}.field("data").field(meshConfigEntry)
		if config != nil {
			a.errorf("is the second configuration of the mesh: the first is in %s", where.obj.source())
			continue
		}
		config, where = m, a
	}
	if config == nil {
		return nil, at{}
	}
	take := func(option *string, value, field string, valid func(string) bool) {
		a := where.field(field)
		switch {
		case value == "":
		case !valid(value):
			a.errorf("%q is not a valid name", value)
		case *option != "" && *option != value:
			a.errorf("is %q, and the control plane was started with %q: give both the same", value, *option)
		default:
			*option = value
		}
	}
	take(&opts.TrustDomain, config.GetTrustDomain(), "trustDomain", isTrustDomain)
	take(&opts.RootNamespace, config.GetRootNamespace(), "rootNamespace", isDNSLabel)
	aliases := slices.Clone(opts.TrustDomainAliases)
	for i, alias := range config.GetTrustDomainAliases() {
		if !isTrustDomain(alias) {
			where.field("trustDomainAliases").index(i).errorf("%q is not a trust domain: use lower case letters, digits, '.', '-' and '_'", alias)
		}
		if !slices.Contains(aliases, alias) {
			aliases = append(aliases, alias)
		}
	}
	opts.TrustDomainAliases = aliases
	return config, where
}

// isTrustDomain is the rule of SPIFFE.
func isTrustDomain(name string) bool {
	if name == "" || len(name) > 255 {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '-' && c != '_' {
			return false
		}
	}
	return true
}
