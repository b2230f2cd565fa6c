package main

import (
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/anishathalye/porcupine"
)

// The session of a name is the oldest, the one with the lowest index. Consul only adds younger ones,
// so that the index of the oldest rises with time. So a state is the index of the last session that
// was the oldest, and whether it exists.
//
// What no answer says happens in between: a session becomes the oldest when the call that created it
// has no answer, or returned another one since its own did not stay. A session ends as `vanishes`
// says. Each is possible in its time only. So a call with an unknown outcome may have happened, now
// or later, without being an operation of the search.

// state is a state of a name.
type state struct {
	index uint64
	alive bool
	// No earlier than this.
	now int64
}

// operation is what an answer says about the session of the name at one moment of the call.
type operation struct {
	by *Record
	// What it says: `is` (this session), `none`, `made` (this call made it the session), `not` (another
	// one, or none) or `ended` (a session that was there, and is gone when the call ends).
	says string
	// The session of `is` and `made`.
	index uint64
	// For `made`: the sessions that can have been there, and whether another call can have put this
	// one in their place.
	replaced []uint64
	shared   bool
}

// model is the specification of a name, for the operations that count.
type model struct {
	sessions []*session
	dies     map[uint64]int64
}

func newModel(g *group, counted map[*Record]bool) *model {
	m := &model{sessions: g.sessions, dies: map[uint64]int64{}}
	for _, s := range g.sessions {
		m.dies[s.Index] = s.diesBy(func(r *Record) bool { return counted[r] })
	}
	return m
}

func (m *model) session(index uint64) *session {
	at := sort.Search(len(m.sessions), func(i int) bool { return m.sessions[i].Index >= index })
	if at < len(m.sessions) && m.sessions[at].Index == index {
		return m.sessions[at]
	}
	return nil
}

// earliest returns the first time in one of the windows and in the interval.
func earliest(windows []window, start, end int64) (int64, bool) {
	first, found := never, false
	for _, w := range windows {
		if w.meets(start, end) {
			first, found = min(first, max(w.start, start)), true
		}
	}
	return first, found
}

// reachable returns each place to which one comes by itself until a time, and when at the earliest.
// moves passes on the places that follow on one, and the times at which they can.
func reachable[P comparable](from P, now, until int64, moves func(at P, to func(next P, when []window))) map[P]int64 {
	best := map[P]int64{}
	var visit func(P, int64)
	visit = func(at P, now int64) {
		if known, visited := best[at]; visited && known <= now {
			return
		}
		best[at] = now
		moves(at, func(next P, when []window) {
			if then, possible := earliest(when, now, until); possible {
				visit(next, then)
			}
		})
	}
	visit(from, now)
	return best
}

// reachable returns all states to which the name can come by itself until a time.
func (m *model) reachable(from state, until int64) []state {
	type place struct {
		index uint64
		alive bool
	}
	best := reachable(place{from.index, from.alive}, from.now, until, func(at place, to func(place, []window)) {
		if at.alive {
			if oldest := m.session(at.index); oldest != nil {
				to(place{at.index, false}, oldest.vanishes)
			}
			return
		}
		for _, next := range m.sessions {
			if next.Index > at.index {
				to(place{next.Index, true}, next.appears())
			}
		}
	})
	var states []state
	for at, now := range best {
		states = append(states, state{at.index, at.alive, now})
	}
	return states
}

// step returns the states after an operation.
func (m *model) step(from state, o operation) []any {
	var next []any
	for _, s := range m.reachable(from, o.by.End) {
		s.now = max(s.now, o.by.Start)
		if s.alive && m.dies[s.index] < s.now {
			continue
		}
		is := s.alive && s.index == o.index
		switch o.says {
		case "is":
			if is {
				next = append(next, s)
			}
		case "none":
			if !s.alive {
				next = append(next, s)
			}
		case "not":
			if !is {
				next = append(next, s)
			}
		case "ended":
			next = append(next, s)
		case "made":
			wasOther := s.index < o.index && (!s.alive || contains(o.replaced, s.index))
			if wasOther || is && o.shared {
				next = append(next, state{o.index, true, s.now})
			}
		}
	}
	return next
}

// operationsOf returns what the answers say about the session of the name. The second result has the
// records that say something about a session of which nothing else is known.
func (k *knowledge) operationsOf(g *group) ([]operation, []*Record) {
	var operations []operation
	var vague []*Record
	index := func(id string) uint64 { return k.sessions[id].Index }
	add := func(o operation) {
		if o.says != "none" && o.index == 0 {
			vague = append(vague, o.by)
			return
		}
		operations = append(operations, o)
	}
	oldest := func(ids []string) uint64 {
		lowest := uint64(0)
		for _, id := range ids {
			i := index(id)
			if i == 0 {
				return 0
			}
			if lowest == 0 || i < lowest {
				lowest = i
			}
		}
		return lowest
	}
	for _, r := range g.presents {
		switch {
		case r.isOK() && r.Answer.Changed:
			o := operation{by: r, says: "made", index: index(r.Answer.Session.ID)}
			for _, id := range r.Answer.Destroyed {
				o.replaced = append(o.replaced, index(id))
			}
			o.shared = len(r.Answer.Destroyed) > 0 || r.Answer.isLost()
			add(o)
		case r.isOK():
			add(operation{by: r, says: "is", index: index(r.Answer.Session.ID)})
		case r.Answer.Case == "mismatch" && r.Answer.Session != nil:
			add(operation{by: r, says: "is", index: index(r.Answer.Session.ID)})
		}
	}
	for _, r := range g.absents {
		switch {
		case !r.isOK():
		case len(r.Answer.Destroyed) == 0:
			add(operation{by: r, says: "none"})
		default:
			add(operation{by: r, says: "is", index: oldest(r.Answer.Destroyed)})
		}
	}
	for _, r := range k.byID {
		if s := k.sessions[r.Session.ID]; s == nil || s.subject != g.subject || !r.isOK() {
			continue
		}
		says := "not"
		if len(r.Answer.Destroyed) > 0 {
			says = "ended"
		}
		add(operation{by: r, says: says, index: index(r.Session.ID)})
	}
	for _, r := range slices.Concat(k.readsByName[g.name], k.readsByName[""]) {
		ids := []string{}
		for _, s := range listed(r) {
			if s.Name == g.name && k.sessions[s.ID].subject == g.subject {
				ids = append(ids, s.ID)
			}
		}
		if len(ids) == 0 {
			add(operation{by: r, says: "none"})
		} else {
			add(operation{by: r, says: "is", index: oldest(ids)})
		}
	}
	return operations, vague
}

// listed returns the sessions that a read shows.
func listed(r *Record) []Session {
	if r.Answer != nil {
		return r.Answer.Sessions
	}
	return r.Sessions
}

// explain searches for a sequence that explains the operations.
func explain(g *group, operations []operation, limit time.Duration) porcupine.CheckResult {
	counted := map[*Record]bool{}
	for _, o := range operations {
		counted[o.by] = true
	}
	m := newModel(g, counted)
	specification := porcupine.NondeterministicModel{
		Init: func() []any { return []any{state{}} },
		Step: func(from, input, _ any) []any { return m.step(from.(state), input.(operation)) },
		Hash: func(s any) uint64 { return s.(state).index },
	}
	var history []porcupine.Operation
	for _, o := range operations {
		history = append(history, porcupine.Operation{Input: o, Call: o.by.Start, Return: o.by.End})
	}
	return porcupine.CheckOperationsTimeout(specification.ToModel(), history, limit)
}

// judgeSessions decides whether one sequence explains the answers about each name.
func (k *knowledge) judgeSessions(v *Verdict, limit time.Duration) {
	for _, g := range k.sortedGroups() {
		operations, vague := k.operationsOf(g)
		v.count("sessions", "names", 1)
		v.count("sessions", "answers", len(operations))
		v.count("sessions", "answers about sessions that nothing else shows", len(vague))
		where := fmt.Sprintf("name %s on %s", g.name, g.node)
		if clash := sameIndex(g); clash != nil {
			v.wrong("index", where, "two sessions have the same index", clash...)
			continue
		}
		switch explain(g, operations, limit) {
		case porcupine.Ok:
			continue
		case porcupine.Unknown:
			v.Undecided = append(v.Undecided, where)
			continue
		}
		if k.excuse(v, g, operations, limit) {
			continue
		}
		shortest := shorten(operations, limit, func(o operation) int64 { return o.by.End }, func(some []operation) bool {
			return explain(g, some, limit) == porcupine.Illegal
		})
		v.wrong("sessions", where, "no sequence of calls explains these answers", recordsOf(shortest)...)
	}
}

// excuse leaves out single answers that Consul may have given from an old state.
func (k *knowledge) excuse(v *Verdict, g *group, operations []operation, limit time.Duration) bool {
	for i, o := range operations {
		fault := k.staleAfter(o.by)
		if fault == nil || o.says == "made" {
			continue
		}
		others := append(append([]operation{}, operations[:i]...), operations[i+1:]...)
		if explain(g, others, limit) == porcupine.Ok {
			v.except(oldState, o.by, fault)
			return true
		}
	}
	return false
}

// shorten drops one after the other as long as the rest is still wrong. What was called stays known,
// and what the dropped answers say does not count. It begins with large parts, and stops when it takes
// too long.
func shorten[T any](all []T, limit time.Duration, end func(T) int64, isWrong func([]T) bool) []T {
	deadline := time.Now().Add(limit)
	all = append([]T{}, all...)
	sort.SliceStable(all, func(a, b int) bool { return end(all[a]) < end(all[b]) })
	for size := len(all) / 2; size > 0; size /= 2 {
		for from := len(all) - size; from >= 0 && time.Now().Before(deadline); from -= size {
			without := append(append([]T{}, all[:from]...), all[from+size:]...)
			if isWrong(without) {
				all = without
			}
			from = min(from, len(all))
		}
	}
	return all
}

func recordsOf(operations []operation) []*Record {
	var records []*Record
	for _, o := range operations {
		if !contains(records, o.by) {
			records = append(records, o.by)
		}
	}
	return records
}

// sameIndex returns the records of two sessions of a name with one index, which Consul never gives.
func sameIndex(g *group) []*Record {
	for i := 1; i < len(g.sessions); i++ {
		a, b := g.sessions[i-1], g.sessions[i]
		if a.Index == b.Index && a.Index != 0 {
			return []*Record{a.named[0], b.named[0]}
		}
	}
	return nil
}

func (k *knowledge) sortedGroups() []*group {
	var groups []*group
	for _, g := range k.groups {
		groups = append(groups, g)
	}
	sort.Slice(groups, func(a, b int) bool {
		x, y := groups[a].subject, groups[b].subject
		return x.name < y.name || x.name == y.name && x.node < y.node
	})
	return groups
}
