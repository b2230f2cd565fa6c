package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Record is a line of a history. src/history.rs describes the fields.
type Record struct {
	ID     uint64
	Client string
	Host   string
	Server *int
	Start  int64
	End    int64
	Kind   string
	Answer *Answer

	Name       *string
	Node       string
	Wish       Wish
	Replace    bool
	Session    *Session
	Consistent bool
	Key        string
	Fence      *uint64
	Previous   *uint64
	Value      uint64
	Prefix     string
	Limit      int
	Since      int64
	Event      string
	Index      uint64
	Count      *int
	Sessions   []Session
	Holders    map[string]string
	Registers  map[string]uint64
	Watches    []string
	Fault      string
	Servers    []int
	Targets    []string

	// The line itself, to print it.
	raw json.RawMessage
}

// Wish has the properties that a call gives.
type Wish struct {
	Behavior *string
	Delay    *int64
	TTL      *int64
	Checks   *[]string
}

// Session is a session as Consul stores it, or only its id.
type Session struct {
	ID       string
	Name     string
	Node     string
	Index    uint64
	Behavior string
	Delay    int64
	TTL      int64
	Checks   []string
}

// Answer is the answer of a call.
type Answer struct {
	Is        string
	Changed   bool
	Session   *Session
	Sessions  []Session
	Destroyed []string
	Before    []Session
	Notes     []string
	Fence     uint64
	LockIndex uint64 `json:"lock_index"`
	Held      bool
	Order     uint64
	Highest   uint64
	Value     uint64
	Case      string
	Message   string
}

// UnmarshalJSON accepts an id alone too.
func (s *Session) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '"' {
		return json.Unmarshal(data, &s.ID)
	}
	type plain Session
	return unmarshalStrictly(data, (*plain)(s))
}

// kinds has the kinds of records, and whether each is a call with an answer.
var kinds = map[string]bool{
	"present": true, "absent": true, "create": true, "destroy": true, "renew": true, "read": true,
	"acquire": true, "release": true, "write": true, "read-register": true, "acquire-slot": true,
	"release-slot": true, "hold": false, "hold-slot": false, "watch": false, "final": false, "fault": false,
}

// readHistory reads one record per line.
func readHistory(input io.Reader) ([]*Record, error) {
	var records []*Record
	ids := map[uint64]bool{}
	reader := bufio.NewReaderSize(input, 1<<20)
	for number := 1; ; number++ {
		line, err := reader.ReadBytes('\n')
		if line = bytes.TrimSpace(line); len(line) > 0 {
			record, err := parse(line)
			if err == nil && ids[record.ID] {
				err = fmt.Errorf("a second record has the id %d", record.ID)
			}
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", number, err)
			}
			ids[record.ID] = true
			records = append(records, record)
		}
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
	}
	if len(records) == 0 {
		return nil, errors.New("the history is empty")
	}
	return records, nil
}

func parse(line []byte) (*Record, error) {
	record := &Record{raw: line}
	if err := unmarshalStrictly(line, record); err != nil {
		return nil, err
	}
	isCall, known := kinds[record.Kind]
	if !known {
		return nil, fmt.Errorf("unknown kind `%s`", record.Kind)
	}
	if isCall != (record.Answer != nil) {
		return nil, fmt.Errorf("a record of the kind `%s` with an answer: %t", record.Kind, !isCall)
	}
	if record.End < record.Start {
		return nil, fmt.Errorf("ends at %d, before it starts at %d", record.End, record.Start)
	}
	return record, nil
}

// unmarshalStrictly refuses fields that only the writer knows.
func unmarshalStrictly(data []byte, value any) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	return decoder.Decode(value)
}

func (r *Record) isOK() bool { return r.Answer != nil && r.Answer.Is != "error" }

// isUnknown returns whether the call may have changed something, or may do so later. An error that
// names what it changed is treated as such, unless that is only the session that it left behind.
func (r *Record) isUnknown() bool {
	if r.Answer == nil || r.Answer.Is != "error" {
		return false
	}
	return r.Answer.Case == "outcome-unknown" || namesChanges(r.Answer.Message) && (r.Replace || leftBehind(r) == "")
}

// isLost returns whether a success says that the answer to its creation was lost.
func (a *Answer) isLost() bool {
	for _, note := range a.Notes {
		if bytes.Contains([]byte(note), []byte("the answer to the creation was lost")) {
			return true
		}
	}
	return false
}

// matches returns whether a session is as wanted.
func (w Wish) matches(s Session) bool {
	if w.Behavior != nil && *w.Behavior != s.Behavior || w.Delay != nil && *w.Delay != s.Delay || w.TTL != nil && *w.TTL != s.TTL {
		return false
	}
	if w.Checks == nil {
		return true
	}
	wanted := *w.Checks
	if len(wanted) > 0 {
		wanted = append([]string{"serfHealth"}, wanted...)
	}
	return isSubset(wanted, s.Checks) && isSubset(s.Checks, wanted)
}

func isSubset(some, all []string) bool {
	for _, one := range some {
		if !contains(all, one) {
			return false
		}
	}
	return true
}

func contains[T comparable](list []T, wanted T) bool {
	for _, one := range list {
		if one == wanted {
			return true
		}
	}
	return false
}
