package rbac

import "github.com/inboardmesh/inboard/discovery"

// tree is a tree of rules, compiled.
type tree struct {
	branches  []branch
	otherwise *verdict
}

type branch struct {
	rule matcher
	then verdict
}

type verdict struct {
	tree   *tree
	policy string
	action discovery.RBACAction
}

func compileTree(t *discovery.RBACTree) *tree {
	if t == nil {
		return nil
	}
	compiled := &tree{branches: make([]branch, len(t.Branches))}
	for i := range t.Branches {
		compiled.branches[i] = branch{rule: compile(&t.Branches[i].Rule), then: compileVerdict(&t.Branches[i].Then)}
	}
	if t.Otherwise != nil {
		then := compileVerdict(t.Otherwise)
		compiled.otherwise = &then
	}
	return compiled
}

func compileVerdict(v *discovery.RBACVerdict) verdict {
	return verdict{tree: compileTree(v.Tree), policy: v.Policy, action: v.Action}
}

// logs reports whether a match may be one that is only reported.
func (t *tree) logs() bool {
	for i := range t.branches {
		if t.branches[i].then.logs() {
			return true
		}
	}
	return t.otherwise != nil && t.otherwise.logs()
}

func (v *verdict) logs() bool {
	if v.tree != nil {
		return v.tree.logs()
	}
	return v.action == discovery.RBACLog
}

// decide follows every reading of the subject: a rule that matches under one and not
// under another leads both ways, and what one of the ways denies is denied.
func (t *tree) decide(s *Subject) decision {
	d := decision{allowed: true}
	if t.follow(s, &d) { // a way led to no verdict
		if d.allowed {
			d.policy, d.matched = "", false
		}
		d.allowed = false
	}
	return d
}

// follow notes the verdicts of every way in d. It reports whether one leads to none.
func (t *tree) follow(s *Subject, d *decision) (undecided bool) {
	for i := range t.branches {
		b := &t.branches[i]
		if !b.rule.match(s, false) {
			continue
		}
		if passed := b.then.follow(s, d); !passed && b.rule.match(s, true) {
			return false
		}
	}
	if t.otherwise == nil {
		return true
	}
	return t.otherwise.follow(s, d)
}

func (v *verdict) follow(s *Subject, d *decision) (undecided bool) {
	if v.tree != nil {
		return v.tree.follow(s, d)
	}
	denies := v.action == discovery.RBACDeny
	if !d.matched || denies && d.allowed {
		d.policy = v.policy // the first, or the one that denies
	}
	d.matched = true
	d.allowed = d.allowed && !denies
	d.logged = d.logged || v.action == discovery.RBACLog
	return false
}
