package main

import (
	"strings"
	"testing"
)

// lock returns the fields of a call about the key `k`.
func lock(session int) fields { return fields{"key": "k", "session": id(session)} }

func acquired(fence int) fields { return answer("acquired", fields{"fence": fence}) }

func slotOf(session int) fields { return fields{"prefix": "p", "session": id(session), "limit": 1} }

// created adds sessions for locks, which nothing ends.
func (h *history) created(numbers ...int) *history {
	name := fields{"name": "locks"}
	all := []fields{}
	for _, n := range numbers {
		h.add(0, 1, "create", name, fields{"node": "n1"}, answer("created", fields{"session": id(n)}))
		all = append(all, stored(n, name))
	}
	return h.add(2, 3, "read", name, fields{"consistent": true}, sessions(all...))
}

func line(event string, more ...fields) fields {
	all := fields{"event": event, "index": 100}
	for _, some := range more {
		for key, value := range some {
			all[key] = value
		}
	}
	return all
}

func of(session fields) fields { return fields{"session": session} }

// TestWrongHistories has histories of which each is wrong in one way. The check that must find it is
// given first, then those that may find it too. No other may complain.
func TestWrongHistories(t *testing.T) {
	a, b, c := stored(1), stored(2), stored(3)
	isDelete := stored(2, deletes)
	for _, test := range []struct {
		name, checks string
		history      *history
	}{
		{"two racers each keep their own session", "sessions", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(0, 10, "present", x, outcome(true, b))},
		{"second session is made while the first certainly exists", "sessions", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(20, 30, "present", x, outcome(true, b))},
		{"oldest is destroyed and a younger one is returned as unchanged", "sessions", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(20, 30, "present", x, fields{"wish": fields{"behavior": "delete"}, "replace": true}, unknown).
			add(40, 50, "present", x, outcome(false, stored(3, deletes))).
			add(60, 70, "present", x, outcome(false, a))},
		{"old rule: a younger session that matches is returned beside the oldest", "sessions", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(0, 40, "present", x, wantsDelete, answer("error", fields{"case": "mismatch", "session": a["id"]})).
			add(20, 30, "present", x, wantsDelete, outcome(false, isDelete)).
			add(50, 60, "read", consistent, sessions(a))},
		{"oldest changes though nothing ends it", "sessions", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(20, 30, "present", x, unknown).
			add(40, 50, "read", consistent, sessions(a, b)).
			add(60, 70, "present", x, outcome(false, b))},
		{"absent finds nothing though the session exists", "missing sessions", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(20, 30, "absent", x, absence()).
			add(40, 50, "present", x, outcome(false, a))},
		{"session is missing in a consistent read", "missing sessions", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(20, 30, "read", consistent, sessions()).
			add(40, 50, "read", consistent, sessions(a))},
		{"session is missing at the end", "missing sessions", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(90, 95, "final", final())},
		{"younger session that stays for certain is missing", "missing", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(20, 30, "present", x, failed("unavailable", "no leader; session "+id(2)+" stays beside the older "+id(1)+" of the same name")).
			add(40, 50, "read", consistent, sessions(a, b)).
			add(60, 70, "read", consistent, sessions(a))},
		{"session expires before its TTL", "missing sessions", new(history).
			add(0, 10, "present", x, outcome(true, stored(1, fields{"ttl": 10000}))).
			add(5*second, 5*second+10, "read", consistent, sessions())},
		{"session expires before its renewed TTL", "missing sessions", new(history).
			add(0, 10, "present", x, outcome(true, stored(1, fields{"ttl": 10000}))).
			add(8*second, 8*second+10, "renew", fields{"session": id(1)}, answer("renewed", of(stored(1, fields{"ttl": 10000})))).
			add(15*second, 15*second+10, "read", consistent, sessions())},
		{"renewal does not find a session that exists", "missing", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(20, 30, "renew", fields{"session": id(1)}, failed("not-found", "gone"))},
		{"destroyed session is returned", "returned sessions", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(20, 30, "absent", x, absence(a)).
			add(40, 50, "present", x, outcome(false, a))},
		{"destroyed session is destroyed again", "returned sessions", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(20, 30, "absent", x, absence(a)).
			add(40, 50, "absent", x, absence(a))},
		{"absent by id does not find a session that exists", "missing sessions", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(20, 30, "absent", fields{"session": id(1)}, absence()).
			add(40, 50, "present", x, outcome(false, a))},
		{"session that was destroyed by id is returned", "returned sessions", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(20, 30, "absent", fields{"session": id(1)}, absence(a)).
			add(40, 50, "present", x, outcome(false, a))},
		{"session with checks ends without a fault", "missing sessions", new(history).
			add(0, 10, "present", x, outcome(true, stored(1, fields{"checks": []string{"serfHealth"}}))).
			add(20, 30, "fault", fields{"fault": "kill", "servers": []int{0}}).
			add(40+200*second, 50+200*second, "present", x, outcome(false, stored(1, fields{"checks": []string{"serfHealth"}}))).
			add(60+200*second, 70+200*second, "read", consistent, sessions())},
		{"replaced session is returned", "returned sessions", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(20, 30, "present", x, wantsDelete, fields{"replace": true}, replacing(isDelete, a)).
			add(40, 50, "read", consistent, sessions(a, isDelete))},
		{"absent leaves a session of the name behind", "missing", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(0, 10, "present", x, unknown).
			add(20, 30, "read", consistent, sessions(a, b)).
			add(40, 50, "absent", x, absence(a)).
			add(60, 70, "read", consistent, sessions(b))},
		{"session is seen before the call that made it", "maker sessions", new(history).
			add(0, 5, "read", consistent, sessions(a)).
			add(10, 20, "present", x, outcome(true, a))},
		{"session is seen that nobody made", "maker sessions", new(history).
			add(0, 10, "absent", x, absence()).
			add(20, 30, "read", consistent, sessions(a))},
		{"session is seen that nobody wanted so", "maker sessions", new(history).
			add(0, 10, "present", x, fields{"wish": fields{"behavior": "release"}}, unknown).
			add(20, 30, "read", consistent, sessions(isDelete))},
		{"two calls made one session", "claims sessions", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(0, 10, "present", x, outcome(true, a))},
		{"unchanged session differs from the wish", "wish", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(20, 30, "present", x, wantsDelete, outcome(false, a))},
		{"mismatch names a session that matches", "wish", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(20, 30, "present", x, answer("error", fields{"case": "mismatch", "session": a["id"]}))},
		{"session changes its properties", "properties", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(20, 30, "read", consistent, sessions(stored(1, fields{"delay": 0})))},
		{"two sessions have one index", "index", new(history).
			add(0, 10, "present", x, unknown).
			add(0, 10, "present", x, unknown).
			add(20, 30, "read", consistent, sessions(a, stored(2, fields{"index": 1})))},
		{"younger session comes first in a read", "listing", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(0, 10, "present", x, unknown).
			add(20, 30, "read", consistent, sessions(b, a))},
		{"certain error did something", "maker sessions", new(history).
			add(10, 20, "read", consistent, sessions()).
			add(30, 40, "present", x, wantsDelete, failed("unavailable", "no leader")).
			add(50, 60, "present", x, fields{"wish": fields{"behavior": "release"}}, outcome(true, a)).
			add(70, 80, "absent", x, absence(a)).
			add(90, 95, "read", consistent, sessions(stored(3, fields{"delay": 7, "behavior": "other"})))},
		{"session of a call with a certain error stays", "sessions", new(history).
			add(0, 10, "present", x, failed("unavailable", "no leader")).
			add(20, 30, "read", consistent, sessions()).
			add(40, 50, "present", x, outcome(false, a))},
		{"error that no fault explains", "error", new(history).
			add(0, 10, "present", x, failed("access-denied", "no"))},
		{"stale answer long after a halt", "missing sessions", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(20, 30, "fault", fields{"fault": "halt", "servers": []int{0}}).
			add(40+3*second, 50+3*second, "read", consistent, sessions()).
			add(60+3*second, 70+3*second, "read", consistent, sessions(a))},

		{"two sessions hold one key", "locks", new(history).created(7, 8).
			add(10, 20, "acquire", lock(7), acquired(50)).
			add(30, 40, "acquire", lock(8), acquired(60))},
		{"fencing number falls", "fences", new(history).created(7, 8).
			add(10, 20, "acquire", lock(7), acquired(50)).
			add(30, 40, "release", lock(7), answer("released", fields{"held": true})).
			add(50, 60, "acquire", lock(8), acquired(40))},
		{"fencing number is given twice", "fences", new(history).created(7, 8).
			add(10, 20, "acquire", lock(7), acquired(50)).
			add(15, 40, "acquire", lock(8), acquired(50))},
		{"fencing number is given again after a release", "locks", new(history).created(7).
			add(10, 20, "acquire", lock(7), acquired(50)).
			add(30, 40, "release", lock(7), answer("released", fields{"held": true})).
			add(50, 60, "acquire", lock(7), acquired(50))},
		{"key is held by nobody", "locks", new(history).created(7, 8).
			add(10, 20, "acquire", lock(7), answer("held"))},
		{"release of a key that is held finds nothing", "locks", new(history).created(7).
			add(10, 20, "acquire", lock(7), acquired(50)).
			add(30, 40, "release", lock(7), answer("released", fields{"held": false})).
			add(50, 60, "release", lock(7), answer("released", fields{"held": true}))},
		{"writes with falling fencing numbers are taken", "register-order", new(history).
			add(10, 20, "write", fields{"key": "k", "fence": 9, "value": 1}, answer("accepted", fields{"order": 1})).
			add(30, 40, "write", fields{"key": "k", "fence": 8, "value": 2}, answer("accepted", fields{"order": 2}))},
		{"update is lost", "registers", new(history).
			add(10, 20, "write", fields{"key": "k", "fence": 8, "previous": 0, "value": 1}, answer("accepted", fields{"order": 1})).
			add(30, 40, "write", fields{"key": "k", "fence": 9, "previous": 0, "value": 1}, answer("accepted", fields{"order": 2}))},
		{"holder of the highest fencing number is kept out", "registers", new(history).
			add(10, 20, "write", fields{"key": "k", "fence": 8, "value": 1}, answer("accepted", fields{"order": 1})).
			add(30, 40, "write", fields{"key": "k", "fence": 9, "value": 2}, answer("refused", fields{"highest": 8}))},
		{"last write is not there at the end", "registers", new(history).
			add(10, 20, "write", fields{"key": "k", "fence": 8, "value": 1}, answer("accepted", fields{"order": 1})).
			add(30, 40, "final", final(), fields{"registers": fields{"k": 0}})},
		{"holder at the end is another", "locks", new(history).created(7, 8).
			add(10, 20, "acquire", lock(7), acquired(50)).
			add(30, 40, "final", final(stored(7, fields{"name": "locks"}), stored(8, fields{"name": "locks"})), fields{"holders": fields{"k": id(8)}})},
		{"semaphore of one has two holders", "semaphores", new(history).created(7, 8).
			add(10, 20, "acquire-slot", slotOf(7), answer("slot")).
			add(30, 40, "acquire-slot", slotOf(8), answer("slot")).
			add(50, 60, "release-slot", fields{"prefix": "p", "session": id(7)}, answer("released", fields{"held": true}))},

		{"semaphore of one has two programs", "semaphores", new(history).
			add(10, 100, "hold-slot", fields{"prefix": "p", "limit": 1, "since": 0, "wish": fields{"checks": []string{}}}).
			add(20, 30, "fault", fields{"fault": "kill", "servers": []int{0}}).
			add(40, 50, "hold-slot", fields{"prefix": "p", "limit": 1, "since": 30, "wish": fields{"checks": []string{}}})},

		{"watch shows a session twice", "watches", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(20, 20, "watch", line("is", of(a))).
			add(30, 30, "watch", line("came", of(a)))},
		{"watch shows a session that comes again", "watches", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(15, 16, "absent", x, absence(a)).
			add(20, 20, "watch", line("is", of(a))).
			add(30, 30, "watch", line("went", of(a))).
			add(40, 40, "watch", line("came", of(a)))},
		{"watch says that a session went that exists", "watches", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(20, 20, "watch", line("is", of(a))).
			add(30, 30, "watch", line("went", of(a))).
			add(40, 50, "read", consistent, sessions(a))},
		{"watch says that a session went that was not there", "watches", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(15, 16, "absent", x, absence(a)).
			add(30, 30, "watch", line("went", of(a)))},
		{"watch counts others than it shows", "watches", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(20, 20, "watch", line("is", of(a))).
			add(30, 30, "watch", line("listed", fields{"count": 2}))},
		{"watch counts others after an error than it shows", "watches", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(0, 10, "present", x, unknown).
			add(20, 20, "watch", line("is", of(a))).
			add(30, 30, "watch", line("recovered", fields{"count": 3})).
			add(31, 31, "watch", line("came", of(b))).
			add(40, 40, "watch", line("error"), fields{"index": 100})},
		{"watch misses a session at the end", "watches", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(20, 20, "watch", line("listed", fields{"count": 0})).
			add(30, 40, "final", final(a), fields{"watches": []string{"c"}})},
		{"watch shows a session that is gone at the end", "watches", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(20, 20, "watch", line("is", of(a))).
			add(30, 40, "absent", x, absence(a)).
			add(50, 60, "final", final(), fields{"watches": []string{"c"}})},
		{"watch shows a session before a call that can have made it", "watches maker", new(history).
			add(20, 20, "watch", line("is", of(a))).
			add(30, 40, "present", x, outcome(true, a))},
		{"third session is older than the index of its line", "watches", new(history).
			add(0, 10, "present", x, outcome(true, c)).
			add(20, 20, "watch", line("is", of(c)), fields{"index": 2})},
	} {
		t.Run(test.name, func(t *testing.T) {
			verdict := test.history.judge(t)
			if verdict.Right || len(verdict.Undecided) > 0 {
				t.Fatalf("accepted: %+v", verdict)
			}
			isFound := false
			for _, fault := range verdict.Wrong {
				checks := strings.Fields(test.checks)
				isFound = isFound || fault.Check == checks[0]
				if !contains(checks, fault.Check) {
					t.Errorf("found by `%s` too", fault.Check)
				}
				if len(fault.History) == 0 {
					t.Errorf("no history for %s", fault.Check)
				}
			}
			if !isFound || t.Failed() {
				t.Errorf("not found by `%s` alone: %s", test.checks, shown(verdict))
			}
		})
	}
}

// shown returns what is wrong, for a message.
func shown(v *Verdict) string {
	text := ""
	for _, fault := range v.Wrong {
		text += fault.Check + ": " + fault.Subject + ": " + fault.Sentence + "\n"
		for _, line := range fault.History {
			text += "  " + string(line) + "\n"
		}
	}
	return text
}
