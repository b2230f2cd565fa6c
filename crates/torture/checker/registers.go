package main

import (
	"maps"
	"slices"
	"sort"
	"time"

	"github.com/anishathalye/porcupine"
)

// registerState is a state of a register: its value, and the highest fencing number that it has seen.
type registerState struct{ value, highest uint64 }

// registerStep is the specification of a register that a lock protects. A write that was made from the
// value that the holder had read must find that value: nobody else wrote in between.
func registerStep(from registerState, r *Record) (bool, registerState) {
	if r.Kind == "final" {
		return true, from
	}
	fence := from.highest
	if r.Fence != nil {
		fence = *r.Fence
	}
	if r.Answer.Is == "refused" {
		return fence < from.highest && r.Answer.Highest == from.highest, from
	}
	if fence < from.highest {
		return false, from
	}
	if r.Kind == "read-register" {
		return r.Answer.Value == from.value, registerState{from.value, fence}
	}
	if r.Previous != nil && *r.Previous != from.value {
		return false, from
	}
	return true, registerState{r.Value, fence}
}

func explainRegister(records []*Record, limit time.Duration) porcupine.CheckResult {
	specification := porcupine.Model{
		Init: func() any { return registerState{} },
		Step: func(from, input, _ any) (bool, any) { return registerStep(from.(registerState), input.(*Record)) },
		Hash: func(s any) uint64 { return s.(registerState).highest },
	}
	var history []porcupine.Operation
	for _, r := range records {
		history = append(history, porcupine.Operation{Input: r, Call: r.Start, Return: r.End})
	}
	return porcupine.CheckOperationsTimeout(specification, history, limit)
}

// judgeRegisters decides whether the fencing numbers of the locks protected each register.
func (k *knowledge) judgeRegisters(v *Verdict, limit time.Duration) {
	registers := map[string][]*Record{}
	var finals []*Record
	for _, r := range k.records {
		switch {
		case r.Kind == "final":
			finals = append(finals, r)
		case (r.Kind == "write" || r.Kind == "read-register") && r.isOK():
			registers[r.Key] = append(registers[r.Key], r)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(registers)) {
		records := registers[key]
		where := "register " + key
		v.count("registers", "registers", 1)
		v.count("registers", "reads and writes", len(records))
		if a, b := writesOutOfOrder(records); a != nil {
			v.wrong("register-order", where, "a write was taken after one with a higher fencing number", a, b)
			continue
		}
		switch explainRegister(records, limit) {
		case porcupine.Unknown:
			v.Undecided = append(v.Undecided, where)
		case porcupine.Illegal:
			v.wrong("registers", where, "an update was lost, or a writer was let in or kept out wrongly", shortestOfRegister(records, limit)...)
		}
		for _, final := range finals {
			if last := lastWrite(records); last != nil && final.Registers != nil && final.Registers[key] != last.Value {
				v.wrong("registers", where, "the last write that was taken is not there at the end", last, final)
			}
		}
	}
}

// shortestOfRegister returns the first records that no sequence explains, without those before which
// the register can be as they find it.
func shortestOfRegister(records []*Record, limit time.Duration) []*Record {
	records = append([]*Record{}, records...)
	sort.SliceStable(records, func(a, b int) bool { return records[a].End < records[b].End })
	until := sort.Search(len(records), func(n int) bool { return explainRegister(records[:n+1], limit) == porcupine.Illegal })
	return records[max(0, until-4):min(len(records), until+1)]
}

// accepted returns the writes that were taken, in the order of the register.
func accepted(records []*Record) []*Record {
	var writes []*Record
	for _, r := range records {
		if r.Kind == "write" && r.Answer.Is == "accepted" {
			writes = append(writes, r)
		}
	}
	sort.SliceStable(writes, func(a, b int) bool { return writes[a].Answer.Order < writes[b].Answer.Order })
	return writes
}

func writesOutOfOrder(records []*Record) (*Record, *Record) {
	writes := accepted(records)
	for i := 1; i < len(writes); i++ {
		if *writes[i].Fence < *writes[i-1].Fence || writes[i].Answer.Order == writes[i-1].Answer.Order {
			return writes[i-1], writes[i]
		}
	}
	return nil, nil
}

func lastWrite(records []*Record) *Record {
	writes := accepted(records)
	if len(writes) == 0 {
		return nil
	}
	return writes[len(writes)-1]
}
