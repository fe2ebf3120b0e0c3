package decode

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// maxProblems bounds what one resource can make a NACK say: a management server
// receives 4 MiB at most by default.
const maxProblems = 1000

// path is the place of a protobuf field in a resource. It is a list that is
// rendered only if there is a problem. The zero path is the resource.
type path struct {
	parent *path
	name   string
	kind   pathKind
	index  int    // of a listElement
	key    string // of a mapEntry
}

type pathKind uint8

const (
	plainField pathKind = iota
	listElement
	mapEntry
)

func (p path) field(name string) path {
	return path{parent: &p, name: name}
}

func (p path) element(name string, index int) path {
	return path{parent: &p, name: name, index: index, kind: listElement}
}

func (p path) entry(name, key string) path {
	return path{parent: &p, name: name, key: key, kind: mapEntry}
}

// String returns "virtual_hosts[2].routes[0].match".
func (p path) String() string {
	var b strings.Builder
	p.write(&b)
	return b.String()
}

func (p path) write(b *strings.Builder) {
	if p.parent == nil {
		return
	}
	p.parent.write(b)
	if b.Len() > 0 {
		b.WriteByte('.')
	}
	b.WriteString(p.name)
	switch p.kind {
	case plainField:
	case listElement:
		b.WriteByte('[')
		b.WriteString(strconv.Itoa(p.index))
		b.WriteByte(']')
	case mapEntry:
		b.WriteByte('[')
		b.WriteString(strconv.Quote(p.key))
		b.WriteByte(']')
	}
}

// problems is what is wrong with one resource. The first problem of a field
// hides the later ones: they are mostly its consequences.
type problems struct {
	errs []error
	seen map[string]struct{}
	more int
}

func (p *problems) addf(at path, format string, args ...any) {
	place := at.String()
	if _, ok := p.seen[place]; ok {
		return
	}
	if p.seen == nil {
		p.seen = make(map[string]struct{})
	}
	if len(p.errs) == maxProblems {
		p.more++
		return
	}
	p.seen[place] = struct{}{}
	p.errs = append(p.errs, fmt.Errorf("%s: "+format, append([]any{place}, args...)...))
}

// err joins the problems, nil without any.
func (p *problems) err() error {
	if p.more > 0 {
		return errors.Join(append(slices.Clip(p.errs), fmt.Errorf("and %d more problems", p.more))...)
	}
	return errors.Join(p.errs...)
}

// refusef records a problem at a field.
func (d *decoder) refusef(at path, format string, args ...any) {
	d.problems.addf(at, format, args...)
}
