package main

// The holes of Consul itself for which the checker makes exceptions. Each is counted and printed.

// oldState is an exception, for which see staleAfter.
const oldState = "an answer from the old state of a server that was halted or cut off"

// staleAfterEnd is how long after the end of a fault a server that led before may answer from its old
// state: until it hears of the new term.
const staleAfterEnd = 1 * second

// leaderChange is how long after a fault a new leader may not know yet what its predecessor knew.
const leaderChange = 15 * second

// staleAfter returns the fault by which a call may have been answered from an old state: a leader that
// was halted or cut off counts an answer to a heartbeat from before as proof that it still leads, so
// that it can answer even a consistent read. A halted one has calls from every server. One that was
// cut off has those of its own clients.
func (k *knowledge) staleAfter(r *Record) *Record {
	for _, f := range k.faults {
		if len(f.Servers) == 0 || r.End < f.End || r.Start > f.End+staleAfterEnd {
			continue
		}
		isOwn := r.Server != nil && contains(f.Servers, *r.Server)
		if f.Fault == "halt" || f.Fault == "partition" && isOwn {
			return f
		}
	}
	return nil
}

// nearLeaderChange returns a fault after which the leader may have changed during a call.
func (k *knowledge) nearLeaderChange(r *Record) *Record {
	for _, f := range k.faults {
		if len(f.Servers) > 0 && r.End >= f.Start && r.Start <= f.End+leaderChange {
			return f
		}
	}
	return nil
}
