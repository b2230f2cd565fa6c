package main

import (
	"fmt"
	"maps"
	"slices"
	"sort"
)

// slowLine is how long a line of a watch can come after what it says: a blocking query, the timeout
// of an answer, and the retry after it.
const slowLine = 90 * second

// judgeWatches decides whether each line of each watch is true, and its picture at the end.
func (k *knowledge) judgeWatches(v *Verdict) {
	watches := map[string][]*Record{}
	var final *Record
	for _, r := range k.records {
		switch r.Kind {
		case "watch":
			watches[r.Client] = append(watches[r.Client], r)
		case "final":
			final = r
		}
	}
	for _, client := range slices.Sorted(maps.Keys(watches)) {
		v.count("watches", "watches", 1)
		v.count("watches", "lines", len(watches[client]))
		k.judgeWatch(v, client, watches[client], final)
	}
	if final != nil {
		for _, client := range final.Watches {
			if len(watches[client]) == 0 {
				v.wrong("watches", "watch "+client, "a watch that runs at the end has said nothing", final)
			}
		}
	}
}

func (k *knowledge) judgeWatch(v *Verdict, client string, lines []*Record, final *Record) {
	sort.SliceStable(lines, func(a, b int) bool { return lines[a].ID < lines[b].ID })
	where := "watch " + client
	// The sessions that it shows, with the line that says so, and those that it has shown before.
	shown, gone := map[string]*Record{}, map[string]*Record{}
	// A line whose count is that of all lines of its index, which come after it.
	var recovered *Record
	compare := func(line *Record) {
		if line.Count != nil && *line.Count != len(shown) {
			sentence := fmt.Sprintf("the line counts %d sessions, and the others show %d", *line.Count, len(shown))
			v.wrong("watches", where, sentence, line)
		}
	}
	for _, line := range lines {
		if isMore := line.Event == "is" || line.Event == "came" || line.Event == "went"; recovered != nil && (!isMore || line.Index != recovered.Index) {
			compare(recovered)
			recovered = nil
		}
		switch line.Event {
		case "is", "came":
			id := line.Session.ID
			if before := shown[id]; before != nil {
				v.wrong("watches", where, "a session came that was there already", before, line)
			} else if before := gone[id]; before != nil {
				k.unlessStale(v, where, "a session came again", before, line)
			}
			shown[id] = line
			delete(gone, id)
			k.judgeCame(v, where, line)
		case "went":
			id := line.Session.ID
			if shown[id] == nil {
				v.wrong("watches", where, "a session went that was not there", line)
			}
			delete(shown, id)
			gone[id] = line
			k.judgeWent(v, where, line)
		case "listed":
			compare(line)
		case "recovered":
			recovered = line
		}
	}
	if recovered != nil && final != nil && contains(final.Watches, client) {
		compare(recovered)
	}
	if final == nil || !contains(final.Watches, client) {
		return
	}
	v.count("watches", "pictures at the end", 1)
	there := map[string]bool{}
	for _, s := range final.Sessions {
		there[s.ID] = true
		if shown[s.ID] == nil {
			records := []*Record{final}
			if gone[s.ID] != nil {
				records = append(records, gone[s.ID])
			}
			v.wrong("watches", where, "a session that exists at the end is not shown", records...)
		}
	}
	for id, line := range shown {
		if !there[id] {
			v.wrong("watches", where, "a session is shown that does not exist at the end", line, final)
		}
	}
}

// judgeCame checks that the session existed at a moment that the line can be about.
func (k *knowledge) judgeCame(v *Verdict, where string, line *Record) {
	s := k.sessions[line.Session.ID]
	if k.names[s.subject.name] && s.born() > line.End && s.born() != never {
		v.wrong("watches", where, "a session came before a call began that can have created it", line)
	}
	if s.Index > line.Index && line.Index > 0 {
		v.wrong("watches", where, "a session came that is younger than the index of the line", line)
	}
	dies := s.diesBy(func(*Record) bool { return true })
	if line.Event == "came" && dies != never && dies+slowLine < line.Start {
		for _, r := range s.gone {
			if r.End == dies {
				k.unlessStale(v, where, "a session came long after a call said that it is gone", r, line)
				return
			}
		}
	}
}

// judgeWent checks that the session could end before the line, and did not exist later.
func (k *knowledge) judgeWent(v *Verdict, where string, line *Record) {
	s := k.sessions[line.Session.ID]
	for _, e := range s.alive {
		if e.by.Start > line.End && k.staleAfter(e.by) == nil {
			k.unlessStale(v, where, "a session went that exists later", line, e.by)
			return
		}
	}
	if k.names[s.subject.name] && !s.canVanish(0, line.End) {
		k.unlessStale(v, where, "a session went that nothing ended", line)
	}
}

// unlessStale reports a line, unless it can come from the old state of a server.
func (k *knowledge) unlessStale(v *Verdict, where, sentence string, records ...*Record) {
	for _, r := range records {
		for _, f := range k.faults {
			isNear := r.Start >= f.End && r.Start <= f.End+staleAfterEnd+2*second
			if r.Kind == "watch" && isNear && (f.Fault == "halt" || f.Fault == "partition") {
				v.except("a line of a watch from the old state of a server that was halted or cut off", r, f)
				return
			}
		}
	}
	v.wrong("watches", where, sentence, records...)
}
