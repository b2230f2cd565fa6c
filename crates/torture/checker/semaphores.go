package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// slot is a time in which a session certainly had a slot.
type slot struct {
	by         *Record
	session    string
	start, end int64
	limit      int
}

// judgeSemaphores decides whether more sessions than the limit certainly had slots at one moment.
func (k *knowledge) judgeSemaphores(v *Verdict) {
	prefixes := map[string][]slot{}
	for _, r := range k.records {
		s := slot{by: r, start: r.End, limit: r.Limit}
		switch {
		case r.Kind == "acquire-slot" && r.isOK() && r.Answer.Is == "slot":
			s.session, s.end = r.Session.ID, k.certainEnd(r)
		case r.Kind == "hold-slot":
			s.session, s.start, s.end = holderOf(r), r.Start, k.certainEndOfProgram(r)
		default:
			continue
		}
		prefixes[r.Prefix] = append(prefixes[r.Prefix], s)
	}
	for _, name := range slices.Sorted(maps.Keys(prefixes)) {
		slots := prefixes[name]
		v.count("semaphores", "prefixes", 1)
		v.count("semaphores", "slots", len(slots))
		most := 0
		for _, s := range slots {
			if s.end <= s.start {
				v.count("semaphores", "slots that are certain at no time", 1)
				continue
			}
			// The most holders are there when one of them begins.
			at := map[string]*Record{}
			for _, other := range slots {
				if other.start <= s.start && s.start < other.end {
					at[other.session] = other.by
				}
			}
			most = max(most, len(at))
			if len(at) > s.limit {
				var records []*Record
				for _, r := range at {
					records = append(records, r)
				}
				v.wrong("semaphores", "prefix "+name, fmt.Sprintf("%d sessions have %d slots at one moment", len(at), s.limit), records...)
				break
			}
		}
		v.count("semaphores", fmt.Sprintf("prefixes with %d certain holders at most", most), 1)
	}
}

// certainEnd returns until when the session of an acquisition certainly keeps its slot.
func (k *knowledge) certainEnd(r *Record) int64 {
	id := r.Session.ID
	end := k.end
	for _, other := range k.releases[id] {
		if other.Prefix == r.Prefix && other.End > r.Start {
			end = min(end, other.Start)
		}
	}
	s := k.sessions[id]
	if s == nil {
		return r.End
	}
	for _, w := range s.vanishes {
		if w.end >= r.Start {
			end = min(end, w.start)
		}
	}
	return end
}

// certainEndOfProgram returns until when a program certainly has its slot. It ends its command before
// Consul ends a session that is not renewed, unless its clock jumps. It learns later that a session
// has ended with the health of its node.
func (k *knowledge) certainEndOfProgram(r *Record) int64 {
	end := r.End
	hasChecks := r.Wish.Checks == nil || len(*r.Wish.Checks) > 0
	for _, f := range k.faults {
		isOwn := slices.ContainsFunc(f.Targets, func(target string) bool {
			return target == r.Client || strings.HasPrefix(target, r.Client+" ")
		})
		if isOwn && f.End >= r.Since || hasChecks && len(f.Servers) > 0 && f.End+healthGrace >= r.Since {
			end = min(end, f.Start)
		}
	}
	return end
}
