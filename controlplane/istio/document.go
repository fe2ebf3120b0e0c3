package istio

import (
	"bytes"
	"errors"
	"io"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
)

const defaultNamespace = "default"

// syntaxLine finds the line in the text of an error of the YAML library, which
// has no other way to give it.
var syntaxLine = regexp.MustCompile(`^(?:yaml: )?line (\d+): `)

// readFile decodes the objects of one file. A file that is not YAML ends at
// the mistake; everything before it is still decoded.
func readFile(rep *reporter, file File) []*object {
	data := file.Data
	if path.Ext(file.Name) == ".json" {
		// A tab is white space in JSON and not allowed in a JSON string, but
		// YAML, which is otherwise a superset, does not let it indent.
		data = bytes.ReplaceAll(data, []byte{'\t'}, []byte{' '})
	}
	var objects []*object
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var document yaml.Node
		err := decoder.Decode(&document)
		if errors.Is(err, io.EOF) {
			return objects
		}
		if err != nil {
			rep.unread = true
			rep.add(syntaxProblem(file.Name, data, err))
			return objects
		}
		if len(document.Content) == 1 && !isNull(document.Content[0]) {
			objects = append(objects, readDocument(rep, file.Name, document.Content[0])...)
		}
	}
}

func syntaxProblem(file string, data []byte, err error) Problem {
	line, text := 1, strings.TrimPrefix(err.Error(), "yaml: ")
	if m := syntaxLine.FindStringSubmatch(err.Error()); m != nil {
		if n, convErr := strconv.Atoi(m[1]); convErr == nil {
			line, text = n, strings.TrimPrefix(err.Error(), m[0])
		}
	}
	remedy := ""
	switch {
	case strings.HasPrefix(text, "did not find expected"):
		// The library counts the lines of these from 0, and has one more at the end.
		line = min(line+1, bytes.Count(bytes.TrimRight(data, "\n"), []byte{'\n'})+1)
		if !strings.Contains(text, "','") {
			remedy = ": is a line indented unlike those beside it?"
		}
	case strings.HasPrefix(text, "mapping values are not allowed"):
		remedy = ": is the line indented too far, or is a text with a colon not in quotes?"
	case strings.HasPrefix(text, "found character that cannot start any token") && lineHas(data, line, '\t'):
		remedy = ": indent with spaces and not with tabs"
	}
	return Problem{File: file, Line: line, Message: "not valid YAML: " + text + remedy}
}

// lineHas reports whether a line, counted from 1, has a character.
func lineHas(data []byte, line int, c byte) bool {
	lines := bytes.Split(data, []byte{'\n'})
	return line >= 1 && line <= len(lines) && bytes.IndexByte(lines[line-1], c) >= 0
}

// readDocument decodes one document: an object, or a List of objects.
func readDocument(rep *reporter, file string, root *yaml.Node) []*object {
	obj := &object{file: file, places: make(map[string]place), broken: make(map[string]bool), root: positionOf(root)}
	whole := at{rep: rep, obj: obj}
	d := &decoder{rep: rep, obj: obj}
	fields, ok := d.mapping(root, whole)
	if !ok {
		return nil
	}
	apiVersion := d.optionalText(fields, whole, "apiVersion")
	obj.kind = d.optionalText(fields, whole, "kind")
	if obj.kind == "List" {
		return readList(rep, file, fields, whole)
	}
	if obj.kind == "" {
		whole.field("kind").errorf("is required, as in any Kubernetes document")
		return nil
	}
	d.readTitle(fields)
	known, ok := kinds[obj.kind]
	if obj.kind == kindEndpoints && apiVersion == "v1" {
		obj.spec = endpointsOnly{}
		return []*object{obj}
	}
	if !ok || obj.isForeign(fields, apiVersion) {
		d.otherDocument(fields, whole, apiVersion)
		return nil
	}
	spec := valueOf(fields, "spec")
	obj.foreign = onlyForGateways(obj.kind, spec)
	d.metadata(fields, whole)
	if !slices.Contains(known.apiVersions, apiVersion) {
		whole.field("apiVersion").errorf("%q is not an API version of %s: use %s",
			apiVersion, obj.kind, strings.Join(known.apiVersions, ", "))
		return nil
	}
	if obj.kind == kindConfigMap {
		d.meshConfig(fields, whole)
		return []*object{obj}
	}
	for _, f := range fields {
		switch f.name {
		case "apiVersion", "kind", "metadata", "status":
		case "spec":
		default:
			if !flatKinds[obj.kind] {
				whole.field(f.name).refuse("unknown field")
			}
		}
	}
	if obj.kind == kindWorkloadEntry {
		obj.healthy = d.condition(fields, whole, "Healthy")
	}
	obj.spec = known.newSpec()
	if flatKinds[obj.kind] {
		d.members(withoutHead(fields), reflect.ValueOf(obj.spec).Elem(), whole)
		return []*object{obj}
	}
	if obj.foreign {
		// Others check it, who have what it is for.
		d.rep = newReporter(nil)
		whole.rep = d.rep
	}
	if obj.kind == kindVirtualService && spec != nil {
		spec = withoutGatewayRoutes(spec)
	}
	if spec != nil && !isNull(spec) {
		if m, ok := obj.spec.(proto.Message); ok {
			d.message(spec, m.ProtoReflect(), whole.field("spec"))
		} else {
			d.structure(spec, reflect.ValueOf(obj.spec).Elem(), whole.field("spec"))
		}
	}
	if obj.foreign {
		clear(obj.broken)
	}
	return []*object{obj}
}

func readList(rep *reporter, file string, fields fieldList, whole at) []*object {
	items, ok := fields.get("items")
	if !ok || isNull(items.value) {
		return nil
	}
	if items.value.Kind != yaml.SequenceNode {
		whole.field("items").errorf("expected a list, found %s", describe(items.value))
		return nil
	}
	var objects []*object
	for _, item := range items.value.Content {
		objects = append(objects, readDocument(rep, file, item)...)
	}
	return objects
}

// bookkeeping are the fields of metadata that Kubernetes fills in and that
// change nothing.
var bookkeeping = []string{
	"creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "finalizers",
	"generateName", "generation", "managedFields", "ownerReferences", "resourceVersion", "selfLink", "uid",
}

func (d *decoder) metadata(fields fieldList, whole at) {
	meta := whole.field("metadata")
	d.obj.name, d.obj.namespace = "", defaultNamespace
	if f, ok := fields.get("metadata"); ok && !isNull(f.value) {
		inner, ok := d.mapping(f.value, meta)
		if !ok {
			return
		}
		d.obj.name = d.optionalText(inner, meta, "name")
		if ns := d.optionalText(inner, meta, "namespace"); ns != "" {
			d.obj.namespace = ns
		}
		d.created(inner, meta)
		d.obj.labels = d.textMap(inner, meta, "labels")
		d.obj.annotations = d.textMap(inner, meta, "annotations")
		for _, f := range inner {
			switch f.name {
			case "name", "namespace", "labels", "annotations":
			default:
				if !slices.Contains(bookkeeping, f.name) {
					meta.field(f.name).refuse("unknown field")
				}
			}
		}
	}
	switch {
	case d.obj.name == "":
		meta.field("name").errorf("is required")
	case !isDNSSubdomain(d.obj.name):
		meta.field("name").errorf("%q is not a name: use lower case letters, digits, '-' and '.'", d.obj.name)
	}
	if clusterKinds[d.obj.kind] {
		d.obj.namespace = ""
	} else if !isDNSLabel(d.obj.namespace) {
		meta.field("namespace").errorf("%q is not a namespace: use lower case letters, digits and '-', at most 63", d.obj.namespace)
	}
	d.annotations(meta.field("annotations"))
}

// created reads when Kubernetes made the object; null is what kubectl writes for
// one that is not there yet.
func (d *decoder) created(meta fieldList, a at) {
	f, ok := meta.get("creationTimestamp")
	if !ok || isNull(f.value) {
		return
	}
	var err error
	if d.obj.created, err = time.Parse(time.RFC3339, f.value.Value); err != nil {
		a.field("creationTimestamp").errorf("%q is not a time: write it like 2026-01-31T12:00:00Z, or remove it", f.value.Value)
	}
}

// annotations refuses the annotations that would change the meaning of the
// object in Istio, or that are ours and misspelt.
func (d *decoder) annotations(a at) {
	for _, key := range sortedKeys(d.obj.annotations) {
		domain, _, _ := strings.Cut(key, "/")
		switch {
		case d.obj.kind == kindPod || d.obj.kind == kindNode || d.obj.foreign: // they are for who runs it
		case annotationOwner(key) == d.obj.kind:
		case annotationOwner(key) != "":
			a.key(key).refuse("belongs on a %s", annotationOwner(key))
		case strings.HasPrefix(key, "inboard."):
			a.key(key).refuse("unknown annotation: known are %s", knownAnnotations)
		case key == healthCheckAnnotation && d.obj.kind == kindWorkloadEntry:
			if text := d.obj.annotations[key]; text != "true" && text != "false" {
				a.key(key).errorf("%q is not one of true, false", text)
			}
		case key == dryRunAnnotation && d.obj.kind == kindAuthorization:
		case domain == "istio.io" || strings.HasSuffix(domain, ".istio.io"):
			a.key(key).refuse("annotations of Istio are not supported: remove it")
		}
	}
}
