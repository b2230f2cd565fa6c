package main

import (
	"container/heap"
	"fmt"
	"iter"
	"math/rand"
	"sort"
)

// simulation is a store with callers that do what the plugin does, request by request, in an order by
// chance. Answers get lost, requests arrive late, sessions expire. So its histories are right.
type simulation struct {
	*rand.Rand
	history
	now      int64
	index    int
	stored   []fields
	queue    events
	sequence int
	// The share of lost answers and of certain errors, in percent.
	losses int
	// Whether `present` takes any session that matches, and not only the oldest.
	oldRule bool
	// Keys: holder and fencing number.
	holders map[string]string
	fences  map[string]int
	value   int
	highest int
	writes  int
}

// event is something that happens at a time.
type event struct {
	at       int64
	sequence int
	happens  func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(a, b int) bool {
	return e[a].at < e[b].at || e[a].at == e[b].at && e[a].sequence < e[b].sequence
}
func (e events) Swap(a, b int) { e[a], e[b] = e[b], e[a] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

func (s *simulation) after(delay int64, happens func()) {
	s.sequence++
	heap.Push(&s.queue, event{s.now + delay, s.sequence, happens})
}

// start runs a caller, which waits by yielding a time.
func (s *simulation) start(caller iter.Seq[int64]) {
	next, stop := iter.Pull(caller)
	var resume func()
	resume = func() {
		if delay, more := next(); more {
			s.after(delay, resume)
		} else {
			stop()
		}
	}
	s.after(int64(s.Intn(50)), resume)
}

func (s *simulation) run() {
	for len(s.queue) > 0 {
		next := heap.Pop(&s.queue).(event)
		s.now = next.at
		next.happens()
	}
}

// result is how a request ended.
type result int

const (
	done result = iota
	// An error that says that nothing was changed.
	certainly
	// An error after which it may have happened.
	doubtful
)

type pause = func(int64) bool

// request lets something happen at the store between two pauses.
func (s *simulation) request(wait pause, happens func()) result {
	wait(int64(1 + s.Intn(20)))
	switch chance := s.Intn(100); {
	case chance < s.losses/2:
		return certainly
	case chance < s.losses:
		// It happens, happens late, or does not.
		switch s.Intn(3) {
		case 0:
			happens()
		case 1:
			s.after(int64(s.Intn(2000)), happens)
		}
		wait(int64(100 + s.Intn(100)))
		return doubtful
	}
	happens()
	wait(int64(1 + s.Intn(20)))
	return done
}

// look reads all sessions of a name. Reads can be repeated.
func (s *simulation) look(wait pause, name string) ([]fields, result) {
	var seen []fields
	for range 3 {
		result := s.request(wait, func() { seen = s.named(name) })
		if result == done {
			return seen, done
		}
		seen = nil
	}
	return nil, certainly
}

func (s *simulation) named(name string) []fields {
	found := []fields{}
	for _, stored := range s.stored {
		if stored["name"] == name {
			found = append(found, stored)
		}
	}
	return found
}

func (s *simulation) create(wait pause, name string, wish fields) (fields, result) {
	var created fields
	result := s.request(wait, func() {
		s.index++
		created = stored(s.index, fields{"name": name}, wish)
		s.stored = append(s.stored, created)
		if ttl := int64(created["ttl"].(int)) * 1000; ttl > 0 {
			id := created["id"]
			s.after(ttl+s.Int63n(ttl), func() { s.remove(id) })
		}
	})
	return created, result
}

func (s *simulation) remove(id any) {
	for i, stored := range s.stored {
		if stored["id"] == id {
			s.stored = append(append([]fields{}, s.stored[:i]...), s.stored[i+1:]...)
			for key, holder := range s.holders {
				if holder == id {
					s.holders[key] = ""
				}
			}
			return
		}
	}
}

func (s *simulation) destroy(wait pause, id any) result {
	return s.request(wait, func() { s.remove(id) })
}

// isLike returns whether a session is as the wish says.
func isLike(session, wish fields) bool {
	for key, value := range wish {
		if session[key] != value {
			return false
		}
	}
	return true
}

// present is the loop of src/apply/present_name.rs.
func (s *simulation) present(wait pause, client, name string, wish fields, replace bool) {
	begin := s.now
	answer := s.settle(wait, name, wish, replace)
	call := fields{"client": client, "name": name, "node": "n1", "wish": wish, "replace": replace}
	s.add(begin, s.now, "present", call, answer)
}

func (s *simulation) settle(wait pause, name string, wish fields, replace bool) fields {
	var own, favoured any
	var before, created, replaced []any
	var old []fields
	isLost, waited := false, false
	interrupted := func(failure string) fields {
		if isLost || own != nil || len(replaced) > 0 {
			return unknown
		}
		return failed("unavailable", failure)
	}
	// Creates a session, and returns whether that is done or in doubt.
	create := func() bool {
		favoured = nil
		session, result := s.create(wait, name, wish)
		switch result {
		case done:
			own = session["id"]
			created = append(created, own)
		case doubtful:
			isLost = true
		default:
			return false
		}
		return true
	}
	for look := range 20 {
		seen, result := s.look(wait, name)
		if result != done {
			return interrupted("no leader")
		}
		ids := []any{}
		for _, session := range seen {
			ids = append(ids, session["id"])
		}
		if look == 0 {
			before = ids
		}
		if own != nil && !contains(ids, own) {
			own = nil
			wait(200)
		}
		if len(seen) == 0 {
			if isLost && waited {
				return unknown
			}
			if isLost {
				waited = true
				wait(1000)
				continue
			}
			if len(created) == 3 {
				return failed("other", "did not settle; were created")
			}
			if !create() {
				return interrupted("no leader")
			}
			continue
		}
		oldest := seen[0]
		if s.oldRule {
			for _, session := range seen {
				if isLike(session, wish) && own == nil {
					oldest = session
					break
				}
			}
		}
		isKept := oldest["id"] == own || isLike(oldest, wish)
		target := oldest
		var older []fields
		creates := false
		if !isKept && replace {
			for i, session := range seen[1:] {
				if isLike(session, wish) {
					target, older = session, seen[:i+1]
					break
				}
			}
			creates = older == nil && own == nil
		}
		if creates {
			if isLost && waited {
				return unknown
			}
			if isLost {
				waited = true
				wait(1000)
				continue
			}
			if len(created) == 3 {
				return failed("outcome-unknown", "did not settle")
			}
			if !create() {
				return interrupted("no leader")
			}
			continue
		}
		isConfirmed := favoured == target["id"]
		favoured = target["id"]
		if own != nil && own != target["id"] {
			if isConfirmed {
				switch s.destroy(wait, own) {
				case doubtful:
					return failed("outcome-unknown", fmt.Sprintf("lost; session %s may stay beside the older %s of the same name", own, target["id"]))
				case certainly:
					return failed("unavailable", fmt.Sprintf("no leader; session %s stays beside the older %s of the same name", own, target["id"]))
				}
			}
			continue
		}
		switch {
		case isKept:
			changed := contains(created, target["id"]) || len(replaced) > 0
			isFound := isLost && !contains(before, target["id"])
			notes := []string{}
			if isLost {
				notes = append(notes, "the answer to the creation was lost (timeout): …")
			}
			return answer("outcome", fields{
				"changed": changed || isFound, "session": target["id"], "sessions": []fields{target}, "destroyed": append([]any{}, replaced...),
				"before": old, "notes": notes,
			})
		case older == nil && isLost:
			return unknown
		case older == nil:
			return answer("error", fields{"case": "mismatch", "session": target["id"]})
		case !contains(created, target["id"]) && !isConfirmed:
			wait(200)
		default:
			for i := len(older) - 1; i >= 0; i-- {
				if s.destroy(wait, older[i]["id"]) != done {
					return unknown
				}
			}
			for _, session := range older {
				if !contains(replaced, session["id"]) {
					replaced, old = append(replaced, session["id"]), append(old, session)
				}
			}
		}
	}
	return failed("outcome-unknown", "did not settle")
}

func (s *simulation) absent(wait pause, client, name string) {
	begin := s.now
	answer := func() fields {
		seen, result := s.look(wait, name)
		if result != done {
			return failed("unavailable", "no leader")
		}
		for i := len(seen) - 1; i >= 0; i-- {
			if s.destroy(wait, seen[i]["id"]) != done {
				return unknown
			}
		}
		if len(seen) > 0 {
			if _, result := s.look(wait, name); result != done {
				return unknown
			}
		}
		return absence(seen...)
	}()
	s.add(begin, s.now, "absent", fields{"client": client, "name": name, "node": "n1"}, answer)
}

func (s *simulation) read(wait pause, client, name string) {
	begin := s.now
	seen, result := s.look(wait, name)
	answer := sessions(seen...)
	if result != done {
		answer = failed("unavailable", "no leader")
	}
	s.add(begin, s.now, "read", fields{"client": client, "name": name, "consistent": true}, answer)
}

// absentID destroys a session that has been seen.
func (s *simulation) absentID(wait pause, client, id string) {
	begin := s.now
	answer := func() fields {
		found, result := s.find(wait, id)
		if result != done {
			return failed("unavailable", "no leader")
		}
		for range found {
			if s.destroy(wait, id) != done {
				return unknown
			}
			if _, result := s.find(wait, id); result != done {
				return unknown
			}
		}
		return absence(found...)
	}()
	s.add(begin, s.now, "absent", fields{"client": client, "session": id}, answer)
}

// find reads one session.
func (s *simulation) find(wait pause, id string) ([]fields, result) {
	var found []fields
	result := s.request(wait, func() {
		for _, stored := range s.stored {
			if stored["id"] == id {
				found = []fields{stored}
			}
		}
	})
	return found, result
}

// renew reads, which is all that it does without a TTL.
func (s *simulation) renew(wait pause, client, id string) {
	begin := s.now
	answer := failed("unavailable", "no leader")
	if found, result := s.find(wait, id); result == done {
		answer = failed("not-found", "no such session")
		for _, stored := range found {
			if stored["ttl"] != 0 {
				return
			}
			answer = fields{"answer": fields{"is": "renewed", "session": stored}}
		}
	}
	s.add(begin, s.now, "renew", fields{"client": client, "session": id}, answer)
}

// caller makes calls about a few names.
func (s *simulation) caller(client string, names, perName int) iter.Seq[int64] {
	return func(wait func(int64) bool) {
		for call := range names * perName {
			name := fmt.Sprintf("name-%d", call/perName)
			wish := fields{}
			if s.Intn(2) == 0 {
				wish["behavior"] = []string{"release", "delete"}[s.Intn(2)]
			}
			if s.Intn(8) == 0 {
				wish["ttl"] = 10
			}
			known := s.named(name)
			switch chance := s.Intn(8); {
			case chance == 0:
				s.absent(wait, client, name)
			case chance == 1:
				s.read(wait, client, name)
			case chance == 2 && len(known) > 0:
				s.absentID(wait, client, known[s.Intn(len(known))]["id"].(string))
			case chance == 3 && len(known) > 0:
				s.renew(wait, client, known[s.Intn(len(known))]["id"].(string))
			default:
				s.present(wait, client, name, wish, s.Intn(3) == 0)
			}
			wait(int64(s.Intn(60)))
		}
	}
}

// locker acquires and releases a key, and writes to the register while it holds it.
func (s *simulation) locker(client string, rounds int) iter.Seq[int64] {
	return func(wait func(int64) bool) {
		begin := s.now
		session, result := s.create(wait, "locks", fields{})
		if result != done {
			s.add(begin, s.now, "create", fields{"client": client, "node": "n1", "name": "locks"}, unknown)
			return
		}
		id := session["id"]
		s.add(begin, s.now, "create", fields{"client": client, "node": "n1", "name": "locks"}, answer("created", of(fields{"session": id})["session"].(fields)))
		call := fields{"client": client, "key": "k", "session": id}
		for range rounds {
			begin, fence, said := s.now, 0, fields{}
			switch s.request(wait, func() {
				holder := s.holders["k"]
				said = answer("held")
				if isThere := len(s.stored) > 0; isThere && (holder == "" || holder == id) {
					s.index++
					s.holders["k"], fence = id.(string), s.index
					said = acquired(fence)
				}
			}) {
			case certainly:
				said = failed("unavailable", "no leader")
			case doubtful:
				said, fence = unknown, 0
			}
			s.add(begin, s.now, "acquire", call, said)
			if fence != 0 {
				s.write(wait, client, fence)
				begin, said := s.now, fields{}
				switch s.request(wait, func() {
					held := s.holders["k"] == id
					if held {
						s.holders["k"] = ""
					}
					said = answer("released", fields{"held": held})
				}) {
				case certainly:
					said = failed("unavailable", "no leader")
				case doubtful:
					said = unknown
				}
				s.add(begin, s.now, "release", call, said)
			}
			wait(int64(s.Intn(40)))
		}
	}
}

func (s *simulation) write(wait pause, client string, fence int) {
	begin, value := s.now, s.value
	call := fields{"client": client, "key": "k", "fence": fence}
	if fence < s.highest {
		s.add(begin, s.now, "read-register", call, answer("refused", fields{"highest": s.highest}))
		return
	}
	s.highest = fence
	s.add(begin, s.now, "read-register", call, answer("value", fields{"value": value}))
	wait(int64(s.Intn(100)))
	begin = s.now
	written := fields{"previous": value, "value": value + 1}
	if fence < s.highest {
		s.add(begin, s.now, "write", call, written, answer("refused", fields{"highest": s.highest}))
		return
	}
	s.value++
	s.writes++
	s.add(begin, s.now, "write", call, written, answer("accepted", fields{"order": s.writes}))
}

// watcher prints what it sees, as `consul-session watch` does.
func (s *simulation) watcher(client string, looks int) iter.Seq[int64] {
	return func(wait func(int64) bool) {
		shown := map[any]fields{}
		for look := range looks {
			var seen []fields
			index := 0
			if s.request(wait, func() { seen, index = append([]fields{}, s.stored...), s.index }) != done {
				continue
			}
			say := func(event string, session fields) {
				s.add(s.now, s.now, "watch", fields{"client": client, "event": event, "index": index, "session": session})
			}
			now := map[any]fields{}
			for _, session := range seen {
				now[session["id"]] = session
			}
			for _, session := range sorted(shown) {
				if now[session["id"]] == nil {
					say("went", session)
				}
			}
			for _, session := range sorted(now) {
				if shown[session["id"]] == nil {
					say(map[bool]string{true: "is", false: "came"}[look == 0], session)
				}
			}
			shown = now
			wait(int64(s.Intn(100)))
		}
	}
}

func sorted(sessions map[any]fields) []fields {
	var all []fields
	for _, session := range sessions {
		all = append(all, session)
	}
	sort.Slice(all, func(a, b int) bool { return all[a]["index"].(int) < all[b]["index"].(int) })
	return all
}

// simulate returns a right history, if the rule is the present one.
func simulate(seed int64, oldRule bool) *simulation {
	s := &simulation{Rand: rand.New(rand.NewSource(seed)), oldRule: oldRule, holders: map[string]string{}, fences: map[string]int{}}
	s.losses = s.Intn(16)
	perName := 3 + s.Intn(6)
	for client := range 2 + s.Intn(5) {
		s.start(s.caller(fmt.Sprintf("caller-%d", client), 6, perName))
		s.start(s.locker(fmt.Sprintf("locker-%d", client), 10))
	}
	s.start(s.watcher("watcher", 40))
	s.run()
	begin := s.now + 1
	holders := fields{}
	if holder := s.holders["k"]; holder != "" {
		holders["k"] = holder
	}
	s.add(begin, begin+1, "final", final(s.stored...), fields{"holders": holders, "registers": fields{"k": s.value}})
	return s
}
