package main

import (
	"encoding/json"
	"slices"
	"sort"
)

// Verdict is the result, which is printed as JSON.
type Verdict struct {
	// Whether nothing is wrong and everything was decided.
	Right bool `json:"right"`
	// How many calls of each kind had which answer: `ok`, or the case of an error.
	Calls map[string]map[string]int `json:"calls"`
	// How much each check judged.
	Judged map[string]map[string]int `json:"judged"`
	// What was excused, since Consul itself may answer so.
	Exceptions []*Exception `json:"exceptions"`
	// What the search did not decide in time.
	Undecided []string `json:"undecided"`
	// What is wrong.
	Wrong []Fault `json:"wrong"`
}

// Exception is a kind of wrong answer that Consul itself gives, with the answers that were excused.
type Exception struct {
	What  string `json:"what"`
	Count int    `json:"count"`
	// The ids of the records.
	Examples [][]uint64 `json:"examples"`
}

// Fault is something that is wrong.
type Fault struct {
	// The check that found it.
	Check string `json:"check"`
	// What it is about.
	Subject string `json:"subject"`
	// What is wrong, in one sentence.
	Sentence string `json:"sentence"`
	// How often the same was found of it.
	Times int `json:"times"`
	// The shortest history that shows it, or the first one.
	History []json.RawMessage `json:"history"`
}

func newVerdict(records []*Record) *Verdict {
	v := &Verdict{
		Calls: map[string]map[string]int{}, Judged: map[string]map[string]int{},
		Exceptions: []*Exception{}, Undecided: []string{}, Wrong: []Fault{},
	}
	for _, r := range records {
		if r.Answer == nil {
			continue
		}
		answer := "ok"
		if !r.isOK() {
			answer = r.Answer.Case
		}
		if v.Calls[r.Kind] == nil {
			v.Calls[r.Kind] = map[string]int{}
		}
		v.Calls[r.Kind][answer]++
	}
	return v
}

func (v *Verdict) count(check, what string, number int) {
	if v.Judged[check] == nil {
		v.Judged[check] = map[string]int{}
	}
	v.Judged[check][what] += number
}

func (v *Verdict) wrong(check, subject, sentence string, records ...*Record) {
	for i := range v.Wrong {
		if same := &v.Wrong[i]; same.Check == check && same.Subject == subject && same.Sentence == sentence {
			same.Times++
			return
		}
	}
	sort.SliceStable(records, func(a, b int) bool { return records[a].Start < records[b].Start })
	fault := Fault{Check: check, Subject: subject, Sentence: sentence, Times: 1, History: []json.RawMessage{}}
	for _, r := range records {
		fault.History = append(fault.History, r.raw)
	}
	v.Wrong = append(v.Wrong, fault)
}

// except counts an exception. The records are its example.
func (v *Verdict) except(what string, records ...*Record) {
	var found *Exception
	for _, e := range v.Exceptions {
		if e.What == what {
			found = e
		}
	}
	if found == nil {
		found = &Exception{What: what}
		v.Exceptions = append(v.Exceptions, found)
	}
	ids := []uint64{}
	for _, r := range records {
		ids = append(ids, r.ID)
	}
	// Two checks can excuse the same answer.
	for _, example := range found.Examples {
		if slices.Equal(example, ids) {
			return
		}
	}
	found.Count++
	found.Examples = append(found.Examples, ids)
}
