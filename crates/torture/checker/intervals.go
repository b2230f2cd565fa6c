package main

import (
	"fmt"
	"reflect"
	"sort"
	"strings"
)

// Checks that need no search: what each answer says alone, and what two say of one session.

// expectedErrors has the cases of errors that a fault can cause, and those that are an answer.
// `critical-check` comes of the health of a node.
var expectedErrors = []string{
	"unavailable", "timeout", "unreachable", "outcome-unknown", "invalid-response", "mismatch", "not-found", "critical-check",
}

func (k *knowledge) judgeIntervals(v *Verdict) {
	k.judgeErrors(v)
	k.judgeProperties(v)
	k.judgeWishes(v)
	for _, s := range k.sortedSessions() {
		v.count("intervals", "sessions", 1)
		k.judgeMakers(v, s)
		k.judgeClaims(v, s)
		k.judgeReturned(v, s)
	}
	k.judgeReads(v)
	k.judgeRenewals(v)
}

func (k *knowledge) sortedSessions() []*session {
	var all []*session
	for _, s := range k.sessions {
		all = append(all, s)
	}
	sort.Slice(all, func(a, b int) bool { return all[a].ID < all[b].ID })
	return all
}

func (k *knowledge) judgeErrors(v *Verdict) {
	for _, r := range k.records {
		if r.Answer == nil || r.isOK() {
			continue
		}
		// With enough other callers, `present` gives up.
		isContention := r.Answer.Case == "other" && strings.Contains(r.Answer.Message, "did not settle")
		if !isContention && !contains(expectedErrors, r.Answer.Case) {
			v.wrong("error", r.Kind, "no fault explains the error "+r.Answer.Case, r)
		}
	}
}

// judgeProperties compares all that is shown of a session: sessions are immutable.
func (k *knowledge) judgeProperties(v *Verdict) {
	first := map[string]*Record{}
	shown := map[string]Session{}
	for _, r := range k.records {
		for _, s := range shownBy(r) {
			if s.Index == 0 {
				continue
			}
			sort.Strings(s.Checks)
			before, known := shown[s.ID]
			if !known {
				first[s.ID], shown[s.ID] = r, s
			} else if !sameProperties(before, s) {
				v.wrong("properties", "session "+s.ID, "a session is shown with different properties", first[s.ID], r)
			}
		}
	}
	v.count("intervals", "sessions with their properties", len(shown))
}

func sameProperties(a, b Session) bool {
	if len(a.Checks) == 0 && len(b.Checks) == 0 {
		a.Checks, b.Checks = nil, nil
	}
	return reflect.DeepEqual(a, b)
}

func shownBy(r *Record) []Session {
	shown := append([]Session{}, r.Sessions...)
	if r.Session != nil {
		shown = append(shown, *r.Session)
	}
	if a := r.Answer; a != nil {
		shown = append(append(shown, a.Sessions...), a.Before...)
		if a.Session != nil {
			shown = append(shown, *a.Session)
		}
	}
	return shown
}

// judgeWishes compares the sessions of `present` with what was wanted.
func (k *knowledge) judgeWishes(v *Verdict) {
	for _, r := range k.records {
		if r.Kind != "present" || r.Answer.Session == nil {
			continue
		}
		s := k.sessions[r.Answer.Session.ID]
		if s.Index == 0 {
			continue
		}
		v.count("intervals", "wishes", 1)
		isDifferent := !r.Wish.matches(s.Session)
		switch {
		case s.Name != *r.Name:
			v.wrong("wish", "session "+s.ID, "the session of another name is returned", r)
		case r.isOK() && isDifferent:
			v.wrong("wish", "session "+s.ID, "a session is returned that differs from what was wanted", r, shows(s, r))
		case r.Answer.Case == "mismatch" && !isDifferent:
			v.wrong("wish", "session "+s.ID, "a session is said to differ that is as wanted", r, shows(s, r))
		}
	}
}

// shows returns a record that shows the properties of a session.
func shows(s *session, other *Record) *Record {
	for _, r := range s.named {
		for _, shown := range shownBy(r) {
			if shown.ID == s.ID && shown.Index != 0 {
				return r
			}
		}
	}
	return other
}

// judgeMakers looks for a call that can have created the session of a name.
func (k *knowledge) judgeMakers(v *Verdict, s *session) {
	if !k.names[s.subject.name] {
		return
	}
	seen := s.named[0]
	for _, r := range s.named {
		if r.End < seen.End {
			seen = r
		}
	}
	switch {
	case s.maker == nil && len(s.makers) == 0:
		v.wrong("maker", "session "+s.ID, "a session is seen that no call can have created by then", seen)
	case s.maker != nil && seen.End < s.maker.Start:
		v.wrong("maker", "session "+s.ID, "a session is seen before the call began that says it created it", seen, s.maker)
	}
}

// judgeClaims finds sessions that two calls say they created.
func (k *knowledge) judgeClaims(v *Verdict, s *session) {
	var claimed *Record
	for _, r := range s.named {
		isClaim := claims(r) && r.Answer.Session.ID == s.ID || r.Kind == "create" && r.isOK() && r.Answer.Session.ID == s.ID
		if !isClaim || r == claimed {
			continue
		}
		if claimed != nil {
			v.wrong("claims", "session "+s.ID, "two calls say that they created the session", claimed, r)
		}
		claimed = r
	}
	var destroyers []*Record
	for _, r := range s.gone {
		if r.Kind == "absent" && !contains(destroyers, r) {
			destroyers = append(destroyers, r)
		}
	}
	for i := 1; i < len(destroyers); i++ {
		v.except("two calls of absent that overlap say that they destroyed a session: Consul does not tell", destroyers[i-1], destroyers[i])
	}
}

// judgeReturned finds sessions that are seen after a call said that they are gone.
func (k *knowledge) judgeReturned(v *Verdict, s *session) {
	dies := s.diesBy(func(*Record) bool { return true })
	for _, e := range s.alive {
		if e.by.Start <= dies {
			continue
		}
		if fault := k.staleAfter(e.by); fault != nil {
			v.except(oldState, e.by, fault)
			continue
		}
		for _, r := range s.gone {
			if r.End == dies {
				v.wrong("returned", "session "+s.ID, "a session is seen after a call said that it is gone", r, e.by)
				break
			}
		}
		return
	}
}

// judgeReads compares each consistent read with what exists for certain.
func (k *knowledge) judgeReads(v *Verdict) {
	named := map[string][]*session{}
	all := k.sortedSessions()
	for _, s := range all {
		named[s.subject.name] = append(named[s.subject.name], s)
	}
	for _, r := range k.records {
		if r.Kind == "read" && r.isOK() {
			k.judgeOrder(v, r)
		}
	}
	for _, r := range k.reads {
		v.count("intervals", "consistent reads", 1)
		about := all
		if r.Name != nil {
			about = named[*r.Name]
		}
		shown := map[string]bool{}
		for _, s := range listed(r) {
			shown[s.ID] = true
		}
		for _, s := range about {
			if !shown[s.ID] {
				k.judgeMissing(v, r, s, "a consistent read does not show a session that exists for certain")
			}
		}
	}
	for _, r := range k.byID {
		if s := k.sessions[r.Session.ID]; s != nil && r.isOK() && len(r.Answer.Destroyed) == 0 {
			k.judgeMissing(v, r, s, "a call of absent does not find a session that exists for certain")
		}
	}
	// `absent` destroys all that it sees.
	for _, g := range k.sortedGroups() {
		for _, r := range g.absents {
			if !r.isOK() {
				continue
			}
			for _, s := range g.sessions {
				if !contains(r.Answer.Destroyed, s.ID) {
					k.judgeMissing(v, r, s, "a call of absent leaves out a session that exists for certain")
				}
			}
		}
	}
}

// judgeMissing compares a read that does not show a session with what shows it before and after.
func (k *knowledge) judgeMissing(v *Verdict, r *Record, s *session, sentence string) {
	var before, after *Record
	for _, e := range s.alive {
		if e.by == r || k.staleAfter(e.by) != nil {
			continue
		}
		if e.by.End < r.Start && (before == nil || e.by.Start > before.Start) {
			before = e.by
		}
		if e.by.Start > r.End && (after == nil || e.by.End < after.End) {
			after = e.by
		}
	}
	if before == nil || after == nil && s.canVanish(before.Start, r.End) {
		return
	}
	if fault := k.staleAfter(r); fault != nil {
		v.except(oldState, r, fault)
		return
	}
	records := []*Record{before, r}
	if after != nil {
		records = append(records, after)
	}
	v.wrong("missing", "session "+s.ID, sentence, records...)
}

// judgeOrder checks that a read lists each session once, the oldest first, of the right name, and
// none that no call has begun to create.
func (k *knowledge) judgeOrder(v *Verdict, r *Record) {
	for i, s := range r.Answer.Sessions {
		if r.Name != nil && s.Name != *r.Name {
			v.wrong("listing", "session "+s.ID, "a read shows a session of another name", r)
		}
		if i > 0 && r.Answer.Sessions[i-1].Index > s.Index {
			v.wrong("listing", "session "+s.ID, "a read does not list the oldest session first", r)
		}
		for _, other := range r.Answer.Sessions[:i] {
			if other.ID == s.ID {
				v.wrong("listing", "session "+s.ID, "a read lists a session twice", r)
			}
		}
	}
}

// judgeRenewals checks renewals of sessions that certainly exist.
func (k *knowledge) judgeRenewals(v *Verdict) {
	for _, r := range k.records {
		if r.Kind != "renew" || r.isOK() || r.Answer.Case != "not-found" {
			continue
		}
		s := k.sessions[r.Session.ID]
		if s == nil {
			continue
		}
		v.count("intervals", "refused renewals", 1)
		k.judgeMissing(v, r, s, "a renewal does not find a session that exists for certain")
	}
}

func (s subject) String() string { return fmt.Sprintf("%s on %s", s.name, s.node) }
