package main

import (
	"strings"
	"testing"
)

// TestRightHistories has histories that the rule of `present` and the holes of Consul allow.
func TestRightHistories(t *testing.T) {
	a, b, c := stored(1), stored(2), stored(3)
	isDelete := stored(2, deletes)
	expiring := stored(1, fields{"ttl": 10000})
	for _, test := range []struct {
		name    string
		history *history
	}{
		{"life of a session", new(history).
			add(0, 10, "absent", x, absence()).
			add(20, 30, "present", x, outcome(true, a)).
			add(40, 50, "present", x, outcome(false, a)).
			add(60, 70, "read", consistent, sessions(a)).
			add(80, 90, "absent", x, absence(a)).
			add(100, 110, "present", x, outcome(true, b)).
			add(120, 130, "final", final(b))},
		{"racers agree on the oldest", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(0, 12, "present", x, outcome(false, a)).
			add(0, 14, "read", consistent, sessions(a, b)).
			add(20, 30, "read", consistent, sessions(a))},
		{"unknown creation happens", new(history).
			add(0, 10, "present", x, unknown).
			add(20, 30, "read", consistent, sessions()).
			add(40, 50, "present", x, outcome(false, a))},
		{"unknown creation does not happen", new(history).
			add(0, 10, "present", x, unknown).
			add(40, 50, "present", x, outcome(true, a))},
		{"unknown creation happens beside another and outlives it", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(0, 10, "present", x, unknown).
			add(40, 50, "absent", x, absence(a)).
			add(60, 70, "present", x, outcome(false, b))},
		{"unknown destruction happens late", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(20, 30, "absent", x, unknown).
			add(40, 50, "present", x, outcome(false, a)).
			add(60, 70, "present", x, outcome(true, b))},
		{"replacement", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(20, 30, "present", x, wantsDelete, answer("error", fields{"case": "mismatch", "session": a["id"]})).
			add(40, 50, "present", x, wantsDelete, fields{"replace": true}, replacing(isDelete, a)).
			add(60, 70, "present", x, wantsDelete, outcome(false, isDelete))},
		{"two replacements of one session both say so", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(20, 40, "present", x, wantsDelete, fields{"replace": true}, replacing(isDelete, a)).
			add(20, 45, "present", x, wantsDelete, fields{"replace": true}, replacing(isDelete, a)).
			add(60, 70, "read", consistent, sessions(isDelete))},
		{"interrupted replacement is finished by another", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(20, 30, "present", x, wantsDelete, fields{"replace": true}, failed("outcome-unknown", "lost")).
			add(40, 50, "read", consistent, sessions(a, isDelete)).
			add(60, 70, "present", x, wantsDelete, fields{"replace": true}, replacing(isDelete, a)).
			add(80, 90, "final", final(isDelete))},
		{"winner is destroyed while a loser cleans up", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(5, 60, "present", x, outcome(true, c)).
			add(20, 30, "absent", x, absence(a)).
			add(32, 34, "present", x, outcome(false, b)).
			add(70, 80, "read", consistent, sessions(c))},
		{"loser is promoted", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(5, 60, "present", x, outcome(true, b)).
			add(20, 30, "absent", x, absence(a)).
			add(70, 80, "read", consistent, sessions(b))},
		{"session expires", new(history).
			add(0, 10, "present", x, outcome(true, expiring)).
			add(8*second, 8*second+10, "renew", fields{"session": id(1)}, answer("renewed", fields{"session": expiring})).
			add(12*second, 12*second+10, "present", x, outcome(false, expiring)).
			add(30*second, 30*second+10, "renew", fields{"session": id(1)}, failed("not-found", "gone")).
			add(31*second, 31*second+10, "present", x, outcome(true, b))},
		{"session ends with the health of its node", new(history).
			add(0, 10, "present", x, outcome(true, stored(1, fields{"checks": []string{"serfHealth"}}))).
			add(20, 30, "fault", fields{"fault": "kill", "servers": []int{0}}).
			add(40, 50, "present", x, outcome(true, b))},
		{"session is destroyed by id", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(0, 10, "present", x, unknown).
			add(20, 30, "read", consistent, sessions(a, b)).
			add(40, 50, "absent", fields{"session": id(1)}, absence(a)).
			add(60, 70, "absent", fields{"session": id(1)}, absence()).
			add(80, 90, "present", x, outcome(false, b))},
		{"session that was left behind", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(20, 30, "present", x, failed("unavailable", "no leader; session "+id(2)+" stays beside the older "+id(1)+" of the same name")).
			add(40, 50, "read", consistent, sessions(a, b)).
			add(60, 70, "absent", x, absence(a, b)).
			add(80, 90, "final", final())},
		{"two calls of absent destroy the same session", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(20, 40, "absent", x, absence(a)).
			add(25, 45, "absent", x, absence(a)).
			add(50, 60, "present", x, outcome(true, b))},
		{"lost answer of a creation that is found", new(history).
			add(0, 10, "present", x, answer("outcome", fields{
				"changed": true, "session": a["id"], "sessions": []fields{a},
				"notes": []string{"the answer to the creation was lost (timeout): the session found afterwards may be another caller's"},
			})).
			add(5, 20, "present", x, outcome(true, a))},
		{"default read shows an old state", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(20, 30, "absent", x, absence(a)).
			add(40, 50, "read", fields{"name": "x"}, sessions(a))},
		{"stale answer just after a halt", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(20, 30, "fault", fields{"fault": "halt", "servers": []int{0}}).
			add(25, 50, "read", consistent, sessions()).
			add(60, 70, "read", consistent, sessions(a))},
		{"names on two nodes", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(20, 30, "present", fields{"name": "x", "node": "n2"}, outcome(true, stored(2, fields{"node": "n2"}))).
			add(40, 50, "read", consistent, sessions(a, stored(2, fields{"node": "n2"}))).
			add(60, 70, "present", x, outcome(false, a))},

		{"key changes hands", new(history).created(7, 8).
			add(10, 20, "acquire", lock(7), acquired(50)).
			add(21, 22, "acquire", lock(7), acquired(51)).
			add(30, 40, "acquire", lock(8), answer("held")).
			add(50, 60, "release", lock(7), answer("released", fields{"held": true})).
			add(55, 70, "acquire", lock(8), acquired(60)).
			add(80, 90, "release", lock(7), answer("released", fields{"held": false}))},
		{"holder of a key acquires it again after a release without an answer", new(history).created(7, 8).
			add(10, 20, "acquire", lock(7), acquired(50)).
			add(30, 40, "release", lock(7), unknown).
			add(50, 60, "acquire", lock(8), answer("held")).
			add(70, 80, "acquire", lock(7), acquired(50)).
			add(90, 95, "release", lock(7), answer("released", fields{"held": false})).
			add(96, 99, "acquire", lock(7), acquired(60))},
		{"key is acquired without an answer", new(history).created(7, 8).
			add(10, 20, "acquire", lock(7), unknown).
			add(30, 40, "acquire", lock(8), answer("held")).
			add(50, 60, "release", lock(7), unknown).
			add(70, 80, "acquire", lock(8), acquired(60))},
		{"holder of a key is destroyed", new(history).created(7, 8).
			add(10, 20, "acquire", lock(7), acquired(50)).
			add(30, 40, "destroy", fields{"session": id(7)}, answer("done")).
			add(50, 60, "acquire", lock(8), answer("delayed")).
			add(70, 80, "acquire", lock(8), acquired(60))},
		{"programs hold a key in turn", new(history).
			add(20, 40, "hold", fields{"key": "k", "fence": 50, "since": 0}).
			add(60, 80, "hold", fields{"key": "k", "fence": 60, "since": 5})},
		{"writer that lost its key is kept out", new(history).
			add(10, 20, "write", fields{"key": "k", "fence": 8, "previous": 0, "value": 1}, answer("accepted", fields{"order": 1})).
			add(30, 40, "read-register", fields{"key": "k", "fence": 9}, answer("value", fields{"value": 1})).
			add(50, 60, "write", fields{"key": "k", "fence": 8, "previous": 1, "value": 2}, answer("refused", fields{"highest": 9})).
			add(70, 80, "write", fields{"key": "k", "fence": 9, "previous": 1, "value": 2}, answer("accepted", fields{"order": 2})).
			add(90, 95, "final", final(), fields{"registers": fields{"k": 2}})},
		{"slot changes hands", new(history).created(7, 8).
			add(10, 20, "acquire-slot", slotOf(7), answer("slot")).
			add(21, 22, "acquire-slot", slotOf(8), answer("full")).
			add(30, 40, "release-slot", fields{"prefix": "p", "session": id(7)}, answer("released", fields{"held": true})).
			add(35, 45, "acquire-slot", slotOf(8), answer("slot"))},
		{"slot of a program that was lost in a fault", new(history).
			add(10, 100, "hold-slot", fields{"prefix": "p", "limit": 1, "since": 0}).
			add(20, 30, "fault", fields{"fault": "partition", "servers": []int{1}}).
			add(40, 50, "hold-slot", fields{"prefix": "p", "limit": 1, "since": 30})},
		{"slot of a program whose clock jumped", new(history).
			add(10, 100, "hold-slot", fields{"prefix": "p", "limit": 1, "since": 0, "wish": fields{"checks": []string{}}}).
			add(20, 30, "fault", fields{"fault": "clock-jump", "targets": []string{"c"}}).
			add(40, 50, "hold-slot", fields{"prefix": "p", "limit": 1, "since": 30})},
		{"watch sees what comes and goes", new(history).
			add(0, 10, "present", x, outcome(true, a)).
			add(20, 20, "watch", line("is", of(a))).
			add(21, 21, "watch", line("listed", fields{"count": 1})).
			add(30, 40, "absent", x, absence(a)).
			add(35, 50, "present", x, outcome(true, b)).
			add(55, 56, "absent", x, absence(b)).
			add(57, 58, "present", x, outcome(true, c)).
			add(60, 60, "watch", line("went", of(a))).
			add(61, 61, "watch", line("came", of(b))).
			add(62, 62, "watch", line("error")).
			add(63, 63, "watch", line("recovered", fields{"count": 0, "index": 101})).
			add(64, 64, "watch", line("went", of(b)), fields{"index": 101}).
			add(65, 65, "watch", line("came", of(c)), fields{"index": 102}).
			add(70, 80, "final", final(c), fields{"watches": []string{"c"}})},
	} {
		t.Run(test.name, func(t *testing.T) {
			if verdict := test.history.judge(t); !verdict.Right {
				t.Errorf("refused: %s%v", shown(verdict), verdict.Undecided)
			}
		})
	}
}

// TestUnusableHistories has files that are not histories.
func TestUnusableHistories(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":            "",
		"no JSON":            "present x",
		"unknown kind":       `{"id":1,"client":"c","host":"h","start":0,"end":1,"kind":"dance"}`,
		"unknown field":      `{"id":1,"client":"c","host":"h","start":0,"end":1,"kind":"final","sessions":[],"colour":1}`,
		"no answer":          `{"id":1,"client":"c","host":"h","start":0,"end":1,"kind":"renew","session":"a"}`,
		"end before start":   `{"id":1,"client":"c","host":"h","start":2,"end":1,"kind":"final","sessions":[]}`,
		"id of another line": `{"id":1,"client":"c","host":"h","start":0,"end":1,"kind":"final","sessions":[]}` + "\n" + `{"id":1,"client":"c","host":"h","start":0,"end":1,"kind":"final","sessions":[]}`,
	} {
		if _, err := readHistory(strings.NewReader(text)); err == nil {
			t.Errorf("%s is read", name)
		}
	}
}
