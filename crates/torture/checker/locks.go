package main

import (
	"sort"
	"time"

	"github.com/anishathalye/porcupine"
)

// anyone is a holder that no answer names: a program that acquired the key and did not come to start
// its command, or another one's acquisition whose answer was lost.
const anyone = "anyone"

// lockState is a state of a key.
type lockState struct {
	holder string
	fence  uint64
	now    int64
}

// lockOperation is what an answer says about a key.
type lockOperation struct {
	by         *Record
	start, end int64
	// `acquired`, `held` (by another), `free`, `released`, `not-released` or `holder`.
	says    string
	session string
	fence   uint64
}

// key has what the records say about a key.
type key struct {
	name string
	// The acquisitions that certainly happened.
	operations []lockOperation
	// When sessions can have acquired and lost the key without an answer that says so.
	acquires map[string][]window
	frees    map[string][]window
}

func (k *knowledge) keys() []*key {
	keys := map[string]*key{}
	at := func(name string) *key {
		if keys[name] == nil {
			keys[name] = &key{name: name, acquires: map[string][]window{}, frees: map[string][]window{}}
		}
		return keys[name]
	}
	var finals []*Record
	for _, r := range k.records {
		switch r.Kind {
		case "acquire":
			k.acquisition(at(r.Key), r)
		case "release":
			release(at(r.Key), r)
		case "hold":
			key := at(r.Key)
			holder := holderOf(r)
			key.operations = append(key.operations, lockOperation{r, r.Since, r.Start, "acquired", holder, *r.Fence})
			// The program may have lost the key long before its command ended.
			key.frees[holder] = append(key.frees[holder], window{r.Since, never})
			key.acquires[anyone] = []window{{0, never}}
			key.frees[anyone] = []window{{0, never}}
		case "final":
			finals = append(finals, r)
		}
	}
	var all []*key
	for _, key := range keys {
		for _, r := range finals {
			o := lockOperation{r, r.Start, r.End, "free", "", 0}
			if holder := r.Holders[key.name]; holder != "" {
				o.says, o.session = "holder", holder
			}
			key.operations = append(key.operations, o)
		}
		for holder := range key.frees {
			if s := k.sessions[holder]; s != nil {
				key.frees[holder] = append(key.frees[holder], s.vanishes...)
			}
		}
		all = append(all, key)
	}
	sort.Slice(all, func(a, b int) bool { return all[a].name < all[b].name })
	return all
}

func holderOf(r *Record) string {
	if r.Session != nil {
		return r.Session.ID
	}
	return "holder of " + string(r.raw)
}

func (k *knowledge) acquisition(at *key, r *Record) {
	id := r.Session.ID
	if at.frees[id] == nil {
		at.frees[id] = []window{}
	}
	o := lockOperation{by: r, start: r.Start, end: r.End, session: id}
	switch {
	case r.isUnknown():
		at.acquires[id] = append(at.acquires[id], lifetime(r))
		return
	case !r.isOK():
		return
	case r.Answer.Is == "acquired":
		o.says, o.fence = "acquired", r.Answer.Fence
	case r.Answer.Is == "held":
		o.says = "held"
	default:
		// Each server has lock delays of its own, which it forgets when others lead.
		return
	}
	at.operations = append(at.operations, o)
}

func release(at *key, r *Record) {
	id := r.Session.ID
	switch {
	case r.isUnknown():
		at.frees[id] = append(at.frees[id], lifetime(r))
	case r.isOK() && r.Answer.Held:
		at.operations = append(at.operations, lockOperation{r, r.Start, r.End, "released", id, 0})
		// In case this answer does not count.
		at.frees[id] = append(at.frees[id], lifetime(r))
	case r.isOK():
		at.operations = append(at.operations, lockOperation{r, r.Start, r.End, "not-released", id, 0})
	}
}

// reachable returns all states to which the key can come by itself until a time.
func (at *key) reachable(from lockState, until int64) []lockState {
	type place struct {
		holder string
		fence  uint64
	}
	best := reachable(place{from.holder, from.fence}, from.now, until, func(p place, to func(place, []window)) {
		if p.holder != "" {
			to(place{"", p.fence}, at.frees[p.holder])
			return
		}
		for holder, when := range at.acquires {
			to(place{holder, p.fence}, when)
		}
	})
	var states []lockState
	for p, now := range best {
		states = append(states, lockState{p.holder, p.fence, now})
	}
	return states
}

func (at *key) step(from lockState, o lockOperation) []any {
	var next []any
	for _, s := range at.reachable(from, o.end) {
		s.now = max(s.now, o.start)
		switch o.says {
		case "acquired":
			// Whoever holds it already can be told the same number again.
			isSame := o.fence == s.fence && s.holder == o.session
			if isSame || o.fence > s.fence && (s.holder == "" || s.holder == o.session) {
				next = append(next, lockState{o.session, o.fence, s.now})
			}
		case "held":
			if s.holder != "" && s.holder != o.session {
				next = append(next, s)
			}
		case "free":
			if s.holder == "" {
				next = append(next, s)
			}
		case "holder":
			if s.holder == o.session || s.holder == anyone {
				next = append(next, s)
			}
		case "released":
			if s.holder == o.session {
				next = append(next, lockState{"", s.fence, s.now})
			}
		case "not-released":
			if s.holder != o.session {
				next = append(next, s)
			}
		}
	}
	return next
}

func (at *key) explain(operations []lockOperation, limit time.Duration) porcupine.CheckResult {
	specification := porcupine.NondeterministicModel{
		Init: func() []any { return []any{lockState{}} },
		Step: func(from, input, _ any) []any { return at.step(from.(lockState), input.(lockOperation)) },
		Hash: func(s any) uint64 { return s.(lockState).fence },
	}
	var history []porcupine.Operation
	for _, o := range operations {
		history = append(history, porcupine.Operation{Input: o, Call: o.start, Return: o.end})
	}
	return porcupine.CheckOperationsTimeout(specification.ToModel(), history, limit)
}

// judgeLocks decides whether each key had one holder at a time, with rising fencing numbers.
func (k *knowledge) judgeLocks(v *Verdict, limit time.Duration) {
	for _, at := range k.keys() {
		v.count("locks", "keys", 1)
		v.count("locks", "answers", len(at.operations))
		where := "key " + at.name
		if a, b := fencesOutOfOrder(at.operations); a != nil {
			v.wrong("fences", where, "a later acquisition has no higher fencing number", a, b)
			continue
		}
		switch at.explain(at.operations, limit) {
		case porcupine.Unknown:
			v.Undecided = append(v.Undecided, where)
		case porcupine.Illegal:
			shortest := shorten(at.operations, limit, func(o lockOperation) int64 { return o.end }, func(some []lockOperation) bool {
				return at.isWrong(some, limit)
			})
			var records []*Record
			for _, o := range shortest {
				records = append(records, o.by)
			}
			v.wrong("locks", where, "no sequence of holders explains these answers", records...)
		}
	}
}

// isWrong returns whether some operations are wrong, even if what the others say may have happened or
// not.
func (at *key) isWrong(some []lockOperation, limit time.Duration) bool {
	reduced := &key{name: at.name, acquires: map[string][]window{}, frees: at.frees}
	for holder, windows := range at.acquires {
		reduced.acquires[holder] = windows
	}
	counted := map[*Record]bool{}
	for _, o := range some {
		counted[o.by] = true
	}
	for _, o := range at.operations {
		if o.says == "acquired" && !counted[o.by] {
			reduced.acquires[o.session] = append(append([]window{}, reduced.acquires[o.session]...), window{o.start, o.end})
		}
	}
	return reduced.explain(some, limit) == porcupine.Illegal
}

// fencesOutOfOrder returns two acquisitions of which the later one has no higher number. One of the
// same session can have the same number, if it held the key all the time.
func fencesOutOfOrder(operations []lockOperation) (*Record, *Record) {
	var acquired []lockOperation
	for _, o := range operations {
		if o.says == "acquired" {
			acquired = append(acquired, o)
		}
	}
	byEnd := append([]lockOperation{}, acquired...)
	sort.Slice(byEnd, func(a, b int) bool { return byEnd[a].end < byEnd[b].end })
	sort.Slice(acquired, func(a, b int) bool { return acquired[a].start < acquired[b].start })
	seen := map[uint64]lockOperation{}
	var highest lockOperation
	next := 0
	for _, o := range acquired {
		if other, found := seen[o.fence]; found && other.session != o.session {
			return other.by, o.by
		}
		seen[o.fence] = o
		for ; byEnd[next].end < o.start; next++ {
			if byEnd[next].fence > highest.fence {
				highest = byEnd[next]
			}
		}
		if highest.fence > o.fence || highest.fence == o.fence && highest.session != o.session {
			return highest.by, o.by
		}
	}
	return nil, nil
}
