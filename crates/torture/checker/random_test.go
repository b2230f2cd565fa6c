package main

import (
	"encoding/json"
	"math/rand"
	"os"
	"strconv"
	"testing"
)

// seeds returns the number of random histories, which SEEDS can set.
func seeds(t *testing.T) int64 {
	number, err := strconv.Atoi(os.Getenv("SEEDS"))
	if err != nil {
		return 30
	}
	return int64(number)
}

func TestRandomRightHistoriesAreAccepted(t *testing.T) {
	for seed := range seeds(t) {
		s := simulate(seed, false)
		if verdict := s.judge(t); !verdict.Right {
			t.Fatalf("seed %d refused: %s%v", seed, shown(verdict), verdict.Undecided)
		}
	}
}

// TestRandomHistoriesOfTheOldRuleAreRefused has callers for which any session of the name will do that
// is as they want it, and not only the oldest.
func TestRandomHistoriesOfTheOldRuleAreRefused(t *testing.T) {
	refused, bySessions := 0, 0
	for seed := range seeds(t) {
		verdict := simulate(seed, true).judge(t)
		if verdict.Right {
			continue
		}
		refused++
		for _, fault := range verdict.Wrong {
			if fault.Check == "sessions" {
				bySessions++
				break
			}
		}
	}
	t.Logf("old rule: %d of %d histories refused, %d by the search", refused, seeds(t), bySessions)
	if refused*5 < int(seeds(t)) || bySessions == 0 {
		t.Error("the old rule is not found")
	}
}

// mutation makes a right history wrong, or may. It returns whether it found a place.
type mutation struct {
	name string
	// The least share that must be refused, in percent.
	least  int
	mutate func(*rand.Rand, *history) bool
}

var mutations = []mutation{
	{"the id of an answer is that of no session", 100, func(r *rand.Rand, h *history) bool {
		return change(r, h, "present", func(answer fields) bool {
			if answer["is"] != "outcome" {
				return false
			}
			answer["session"] = "ffffffff-0000-0000-0000-000000000000"
			for _, s := range answer["sessions"].([]any) {
				s.(map[string]any)["id"] = answer["session"]
			}
			return true
		})
	}},
	{"the id of an answer is that of another session of the name", 60, func(r *rand.Rand, h *history) bool {
		return change(r, h, "present", func(answer fields) bool {
			if answer["is"] != "outcome" || answer["changed"] == true {
				return false
			}
			other := anySession(r, h, answer["sessions"].([]any)[0].(map[string]any))
			if other == nil {
				return false
			}
			answer["session"], answer["sessions"] = other["id"], []any{other}
			return true
		})
	}},
	{"an unchanged session is said to be new", 95, func(r *rand.Rand, h *history) bool {
		return change(r, h, "present", func(answer fields) bool {
			if answer["is"] != "outcome" || answer["changed"] == true {
				return false
			}
			answer["changed"] = true
			return true
		})
	}},
	{"a new session is said to be unchanged", 0, func(r *rand.Rand, h *history) bool {
		return change(r, h, "present", func(answer fields) bool {
			if answer["is"] != "outcome" || answer["changed"] == false {
				return false
			}
			answer["changed"], answer["destroyed"], answer["before"] = false, []any{}, []any{}
			return true
		})
	}},
	{"a read leaves a session out", 60, func(r *rand.Rand, h *history) bool {
		return change(r, h, "read", func(answer fields) bool {
			list, isList := answer["sessions"].([]any)
			if !isList || len(list) == 0 {
				return false
			}
			answer["sessions"] = list[1:]
			return true
		})
	}},
	{"absent finds nothing", 40, func(r *rand.Rand, h *history) bool {
		return change(r, h, "absent", func(answer fields) bool {
			if list, isList := answer["destroyed"].([]any); !isList || len(list) == 0 {
				return false
			}
			answer["changed"], answer["destroyed"], answer["before"] = false, []any{}, []any{}
			return true
		})
	}},
	{"an unknown outcome is said to be that of nothing", 0, func(r *rand.Rand, h *history) bool {
		return change(r, h, "present", func(answer fields) bool {
			isUnknown := answer["case"] == "outcome-unknown"
			answer["case"], answer["message"] = "unavailable", "no leader"
			return isUnknown
		})
	}},
	{"an answer is moved to the end", 60, func(r *rand.Rand, h *history) bool {
		last := h.lines[len(h.lines)-1]["start"].(float64)
		at, line := anyLine(r, h, func(line fields) bool {
			a, isCall := line["answer"].(map[string]any)
			return isCall && a["is"] == "outcome" && line["end"].(float64) < last/2
		})
		if line == nil {
			return false
		}
		length := line["end"].(float64) - line["start"].(float64)
		line["start"], line["end"] = last-length-2, last-2
		h.lines[at] = line
		return true
	}},
	{"an acquisition is said to have failed", 60, func(r *rand.Rand, h *history) bool {
		return change(r, h, "acquire", func(answer fields) bool {
			isAcquired := answer["is"] == "acquired"
			answer["is"] = "held"
			delete(answer, "fence")
			return isAcquired
		})
	}},
	{"an acquisition is said to have succeeded", 100, func(r *rand.Rand, h *history) bool {
		return change(r, h, "acquire", func(answer fields) bool {
			isHeld := answer["is"] == "held"
			answer["is"], answer["fence"] = "acquired", 1
			return isHeld
		})
	}},
	{"a write is lost", 100, func(r *rand.Rand, h *history) bool {
		at, line := anyLine(r, h, func(line fields) bool {
			a, isCall := line["answer"].(map[string]any)
			return isCall && a["is"] == "accepted"
		})
		if line != nil {
			h.lines = append(h.lines[:at:at], h.lines[at+1:]...)
		}
		return line != nil
	}},
	{"a line of a watch is lost", 100, func(r *rand.Rand, h *history) bool {
		at, line := anyLine(r, h, func(line fields) bool { return line["kind"] == "watch" && line["event"] == "came" })
		if line == nil || !hasLater(h.lines[at+1:], "went", line) {
			return false
		}
		h.lines = append(h.lines[:at:at], h.lines[at+1:]...)
		return true
	}},
}

// anyLine returns a line that fits, by chance.
func anyLine(r *rand.Rand, h *history, fits func(fields) bool) (int, fields) {
	var found []int
	for at, line := range h.lines {
		if fits(line) {
			found = append(found, at)
		}
	}
	if len(found) == 0 {
		return 0, nil
	}
	at := found[r.Intn(len(found))]
	return at, h.lines[at]
}

// change changes the answer of one call.
func change(r *rand.Rand, h *history, kind string, change func(fields) bool) bool {
	for _, at := range r.Perm(len(h.lines)) {
		if h.lines[at]["kind"] == kind {
			if answer := h.lines[at]["answer"].(map[string]any); change(answer) {
				return true
			}
		}
	}
	return false
}

func hasLater(lines []fields, event string, than fields) bool {
	for _, line := range lines {
		if line["event"] == event && line["session"].(map[string]any)["id"] == than["session"].(map[string]any)["id"] {
			return true
		}
	}
	return false
}

// anySession returns another session of the same name that an answer of `present` has.
func anySession(r *rand.Rand, h *history, than map[string]any) map[string]any {
	_, line := anyLine(r, h, func(line fields) bool {
		if line["kind"] != "present" {
			return false
		}
		list, isList := line["answer"].(map[string]any)["sessions"].([]any)
		if !isList {
			return false
		}
		s := list[0].(map[string]any)
		return s["name"] == than["name"] && s["id"] != than["id"]
	})
	if line == nil {
		return nil
	}
	return line["answer"].(map[string]any)["sessions"].([]any)[0].(map[string]any)
}

// clone returns a history as JSON has it, which can be changed.
func (h *history) clone() *history {
	copied := &history{}
	for _, line := range h.lines {
		text, err := json.Marshal(line)
		if err != nil {
			panic(err)
		}
		again := fields{}
		if err := json.Unmarshal(text, &again); err != nil {
			panic(err)
		}
		copied.lines = append(copied.lines, again)
	}
	return copied
}

func TestMutationsOfRightHistoriesAreRefused(t *testing.T) {
	for _, m := range mutations {
		tried, refused := 0, 0
		for seed := range seeds(t) {
			mutated := simulate(seed, false).clone()
			if !m.mutate(rand.New(rand.NewSource(seed)), mutated) {
				continue
			}
			tried++
			if !mutated.judge(t).Right {
				refused++
			}
		}
		t.Logf("%-60s %3d of %3d refused", m.name, refused, tried)
		if tried == 0 || refused*100 < tried*m.least {
			t.Errorf("%s: %d of %d refused, less than %d %%", m.name, refused, tried, m.least)
		}
	}
}
