package main

import (
	"math"
	"regexp"
	"sort"
	"strings"
)

// second is a second in the time of a history.
const second = int64(1_000_000)

// never is a time after the end of every history.
const never = int64(math.MaxInt64)

// healthGrace is how long after a fault Consul may still find a node unhealthy, and end its sessions.
const healthGrace = 90 * second

var uuid = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)

// window is a time in which something can have happened, with both ends.
type window struct{ start, end int64 }

func (w window) meets(start, end int64) bool { return w.start <= end && w.end >= start }

// evidence says that a session existed at a moment in the interval of a record.
type evidence struct{ by *Record }

// subject is a name on a node: what `present` and `absent` by name are about.
type subject struct{ name, node string }

// session is all that the history says about a session.
type session struct {
	Session
	// The subject, if it is known.
	subject subject
	// Records that show it alive.
	alive []evidence
	// Records that name it at all: as destroyed, too.
	named []*Record
	// Calls that can have created it.
	makers []*Record
	// The call that certainly created it, if one says so without doubt.
	maker *Record
	// Whether that call says that it stays beside an older one.
	isLeft bool
	// When it can have been destroyed or expired.
	vanishes []window
	// Calls whose answers say that it is gone when they end.
	gone []*Record
}

// born returns the first time at which the session can have been created.
func (s *session) born() int64 {
	if s.maker != nil {
		return s.maker.Start
	}
	born := never
	for _, maker := range s.makers {
		born = min(born, maker.Start)
	}
	return born
}

// appears returns when the session can have become the oldest of its name without an answer that says
// so.
func (s *session) appears() []window {
	switch {
	case s.isLeft:
		return []window{{s.maker.Start, never}}
	case s.maker != nil:
		return []window{{s.maker.Start, s.maker.End}}
	}
	var windows []window
	for _, maker := range s.makers {
		w := lifetime(maker)
		if maker.isOK() && maker.Answer.isLost() {
			// The creation whose answer was lost may still be on its way.
			w.end = never
		}
		windows = append(windows, w)
	}
	return windows
}

// lifetime returns when a call can change something.
func lifetime(call *Record) window {
	if call.isUnknown() {
		return window{call.Start, never}
	}
	return window{call.Start, call.End}
}

// canVanish returns whether the session can have ended between two times.
func (s *session) canVanish(start, end int64) bool {
	for _, w := range s.vanishes {
		if w.meets(start, end) {
			return true
		}
	}
	return false
}

// group has the records of a subject.
type group struct {
	subject
	presents []*Record
	absents  []*Record
	sessions []*session
}

// knowledge is what a history says about its sessions.
type knowledge struct {
	records  []*Record
	sessions map[string]*session
	groups   map[subject]*group
	// The names that only `present` and `absent` change.
	names  map[string]bool
	faults []*Record
	// When the health of a node can end sessions with checks.
	unhealthy []window
	// Calls of absent by id.
	byID []*Record
	// Releases of slots by session.
	releases map[string][]*Record
	// Consistent reads, and the final one. And those by name, where all others are under "".
	reads       []*Record
	readsByName map[string][]*Record
	end         int64
}

func learn(records []*Record) *knowledge {
	k := &knowledge{
		records: records, sessions: map[string]*session{}, groups: map[subject]*group{}, names: map[string]bool{}, releases: map[string][]*Record{},
		readsByName: map[string][]*Record{},
	}
	var unscoped []*Record
	for _, r := range records {
		k.end = max(k.end, r.End)
		k.note(r)
		switch {
		case r.Kind == "present":
			g := k.group(r)
			g.presents = append(g.presents, r)
		case r.Kind == "absent" && r.Session == nil:
			g := k.group(r)
			g.absents = append(g.absents, r)
		case r.Kind == "absent" || r.Kind == "destroy":
			unscoped = append(unscoped, r)
			if r.Kind == "absent" {
				k.byID = append(k.byID, r)
			}
		case r.Kind == "fault":
			k.faults = append(k.faults, r)
		case r.Kind == "release-slot":
			k.releases[r.Session.ID] = append(k.releases[r.Session.ID], r)
		case r.Kind == "read" && r.Consistent && r.isOK() || r.Kind == "final":
			k.reads = append(k.reads, r)
			name := ""
			if r.Name != nil {
				name = *r.Name
			}
			k.readsByName[name] = append(k.readsByName[name], r)
		}
	}
	for _, s := range k.sessions {
		if g := k.groups[s.subject]; g != nil {
			g.sessions = append(g.sessions, s)
		}
	}
	for _, g := range k.groups {
		sort.Slice(g.sessions, func(a, b int) bool { return g.sessions[a].Index < g.sessions[b].Index })
		for _, s := range g.sessions {
			k.makersOf(s, g)
		}
		for _, s := range g.sessions {
			k.endsOf(s, g)
		}
	}
	for _, r := range unscoped {
		k.destroyed(r)
	}
	k.unhealthy = unhealthyTimes(k.faults)
	for _, s := range k.sessions {
		k.expires(s)
	}
	return k
}

func (k *knowledge) group(r *Record) *group {
	key := subject{*r.Name, strings.ToLower(r.Node)}
	k.names[key.name] = true
	if k.groups[key] == nil {
		k.groups[key] = &group{subject: key}
	}
	return k.groups[key]
}

func (k *knowledge) session(id string) *session {
	if k.sessions[id] == nil {
		k.sessions[id] = &session{Session: Session{ID: id}}
	}
	return k.sessions[id]
}

// note keeps what a record says about sessions.
func (k *knowledge) note(r *Record) {
	show := func(s Session, isAlive bool) {
		known := k.session(s.ID)
		if s.Index != 0 {
			known.Session = s
			known.subject = subject{s.Name, strings.ToLower(s.Node)}
		}
		known.named = append(known.named, r)
		if isAlive {
			known.alive = append(known.alive, evidence{r})
		}
	}
	if r.Answer == nil {
		// A watch is judged apart: its lines come late.
		for _, s := range r.Sessions {
			show(s, true)
		}
		if r.Kind == "watch" && r.Session != nil {
			show(*r.Session, false)
		}
		return
	}
	// An answer from an old state is judged by nothing but what it names.
	isFresh := r.Kind != "read" || r.Consistent
	for _, s := range r.Answer.Sessions {
		show(s, isFresh)
	}
	for _, s := range r.Answer.Before {
		show(s, true)
	}
	if s := r.Answer.Session; s != nil {
		show(*s, true)
	}
	for _, id := range r.Answer.Destroyed {
		show(Session{ID: id}, true)
		if r.Kind == "present" || r.Kind == "absent" {
			known := k.session(id)
			known.gone = append(known.gone, r)
			if r.Name != nil && known.subject.name == "" {
				known.subject = subject{*r.Name, strings.ToLower(r.Node)}
			}
		}
	}
	if s := r.Answer.Session; s != nil && (r.Kind == "present") && k.session(s.ID).subject.name == "" {
		k.session(s.ID).subject = subject{*r.Name, strings.ToLower(r.Node)}
	}
	if r.Kind == "create" && r.isOK() {
		created := k.session(r.Answer.Session.ID)
		created.maker = r
	}
	if id := leftBehind(r); id != "" {
		show(Session{ID: id}, true)
		if k.session(id).subject.name == "" {
			k.session(id).subject = subject{*r.Name, strings.ToLower(r.Node)}
		}
	}
}

// claims returns whether a call says without doubt that it made the session that it returns.
func claims(r *Record) bool {
	return r.Kind == "present" && r.isOK() && r.Answer.Changed && len(r.Answer.Destroyed) == 0 && !r.Answer.isLost()
}

// leftBehind returns the id of the session that an error says was created and stays.
func leftBehind(r *Record) string {
	if r.Kind != "present" || r.Answer.Is != "error" {
		return ""
	}
	before, _, found := strings.Cut(r.Answer.Message, " stays beside the older ")
	if !found {
		return ""
	}
	ids := uuid.FindAllString(before, -1)
	if len(ids) == 0 {
		return ""
	}
	return ids[len(ids)-1]
}

// namesChanges returns whether the message of an error says that sessions were created or destroyed.
func namesChanges(message string) bool {
	for _, words := range []string{"destroyed: ", "was created", "were created", " stays beside ", " may stay beside "} {
		if strings.Contains(message, words) {
			return true
		}
	}
	return false
}

// makersOf finds the calls that can have created a session of a name: those that want it as it is
// and began before it was seen. A call that created a session which did not stay does not say so.
func (k *knowledge) makersOf(s *session, g *group) {
	seen := never
	for _, r := range s.named {
		seen = min(seen, r.End)
	}
	for _, r := range g.presents {
		if claims(r) && r.Answer.Session.ID == s.ID && s.maker == nil {
			s.maker = r
		}
		if leftBehind(r) == s.ID {
			s.maker, s.isLeft = r, true
		}
		// What a call created itself it does not return as another's.
		isOthers := r.Answer.Session != nil && r.Answer.Session.ID == s.ID && !r.Answer.Changed
		if r.Start <= seen && !isOthers && (s.Index == 0 || r.Wish.matches(s.Session)) {
			s.makers = append(s.makers, r)
		}
	}
}

// endsOf finds when calls can have ended a session of a name.
func (k *knowledge) endsOf(s *session, g *group) {
	// A call destroys what it saw, which can happen after its end if that is unknown.
	add := func(r *Record) {
		if s.born() <= r.End {
			s.vanishes = append(s.vanishes, lifetime(r))
		}
	}
	for _, r := range g.absents {
		if r.isUnknown() || r.isOK() && contains(r.Answer.Destroyed, s.ID) {
			add(r)
		}
	}
	for _, r := range g.presents {
		switch {
		case r.isUnknown() && r.Replace, r.isOK() && contains(r.Answer.Destroyed, s.ID):
			add(r)
		}
	}
	if s.maker != nil {
		return
	}
	for _, maker := range s.makers {
		s.vanishes = append(s.vanishes, lifetime(maker))
	}
}

// destroyed notes a destruction by id.
func (k *knowledge) destroyed(r *Record) {
	s := k.sessions[r.Session.ID]
	if s == nil || !r.isOK() && !r.isUnknown() {
		return
	}
	switch {
	// The endpoint itself may say so of a session that it does not know yet.
	case r.Kind == "destroy":
		s.vanishes = append(s.vanishes, window{r.Start, never})
	case r.isUnknown() || contains(r.Answer.Destroyed, s.ID):
		s.vanishes = append(s.vanishes, lifetime(r))
	}
}

// expires notes when the TTL or the health of the node can end a session.
func (k *knowledge) expires(s *session) {
	ttl, hasChecks := s.TTL, len(s.Checks) > 0
	switch {
	case s.Index != 0:
	case s.maker != nil && s.maker.Kind == "create":
		wish := s.maker.Wish
		hasChecks = wish.Checks == nil || len(*wish.Checks) > 0
		if wish.TTL != nil {
			ttl = *wish.TTL
		}
	default:
		// Nothing is known that would exclude it.
		s.vanishes = append(s.vanishes, window{0, never})
		return
	}
	if ttl > 0 {
		// Consul never ends a session before its TTL is over.
		begin := int64(0)
		if born := s.born(); born != never {
			begin = born
		}
		for _, e := range s.alive {
			if e.by.Kind == "renew" {
				begin = max(begin, e.by.Start)
			}
		}
		s.vanishes = append(s.vanishes, window{begin + ttl*1000, never})
	}
	if hasChecks {
		s.vanishes = append(s.vanishes, k.unhealthy...)
	}
}

// unhealthyTimes returns when Consul may find a node unhealthy, as few windows.
func unhealthyTimes(faults []*Record) []window {
	sorted := append([]*Record{}, faults...)
	sort.Slice(sorted, func(a, b int) bool { return sorted[a].Start < sorted[b].Start })
	var windows []window
	for _, fault := range sorted {
		w := window{fault.Start, fault.End + healthGrace}
		last := len(windows) - 1
		switch {
		case len(fault.Servers) == 0:
		case last >= 0 && windows[last].end >= w.start:
			windows[last].end = max(windows[last].end, w.end)
		default:
			windows = append(windows, w)
		}
	}
	return windows
}

// diesBy returns when the session is certainly gone, by the answers that count.
func (s *session) diesBy(counts func(*Record) bool) int64 {
	dies := never
	for _, r := range s.gone {
		if counts(r) {
			dies = min(dies, r.End)
		}
	}
	return dies
}
