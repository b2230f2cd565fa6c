package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"
	"time"
)

// searchLimit is the time of the search for one name in the tests.
const searchLimit = 20 * time.Second

// fields are the fields of a record or an answer.
type fields map[string]any

// history builds the lines of a history.
type history struct {
	lines []fields
}

// add adds a record in an interval.
func (h *history) add(start, end int64, kind string, more ...fields) *history {
	line := fields{"id": len(h.lines), "client": "c", "host": "h", "server": 0, "start": start, "end": end, "kind": kind}
	for _, some := range more {
		for key, value := range some {
			line[key] = value
		}
	}
	h.lines = append(h.lines, line)
	return h
}

func (h *history) bytes() []byte {
	var all bytes.Buffer
	for _, line := range h.lines {
		text, err := json.Marshal(line)
		if err != nil {
			panic(err)
		}
		all.Write(append(text, '\n'))
	}
	return all.Bytes()
}

func (h *history) judge(t *testing.T) *Verdict {
	t.Helper()
	records, err := readHistory(bytes.NewReader(h.bytes()))
	if err != nil {
		t.Fatal(err)
	}
	return judge(records, searchLimit)
}

// id returns the id with a number.
func id(number int) string { return fmt.Sprintf("%08x-0000-0000-0000-000000000000", number) }

// stored returns the session with a number, which is its index too.
func stored(number int, more ...fields) fields {
	s := fields{
		"id": id(number), "name": "x", "node": "n1", "index": number, "behavior": "release", "delay": 15000, "ttl": 0,
		"checks": []string{},
	}
	for _, some := range more {
		for key, value := range some {
			s[key] = value
		}
	}
	return s
}

var x = fields{"name": "x", "node": "n1"}

var wantsDelete = fields{"wish": fields{"behavior": "delete"}}

var deletes = fields{"behavior": "delete"}

func answer(is string, more ...fields) fields {
	a := fields{"is": is}
	for _, some := range more {
		for key, value := range some {
			a[key] = value
		}
	}
	return fields{"answer": a}
}

// outcome is the answer of `present` with this session.
func outcome(changed bool, session fields) fields {
	return answer("outcome", fields{"changed": changed, "session": session["id"], "sessions": []fields{session}})
}

// replacing is the answer of `present` with a session that replaced these.
func replacing(session fields, old ...fields) fields {
	return answer("outcome", fields{"changed": true, "session": session["id"], "sessions": []fields{session}}, gone(old))
}

// absence is the answer of `absent`.
func absence(old ...fields) fields {
	return answer("outcome", fields{"changed": len(old) > 0}, gone(old))
}

func gone(old []fields) fields {
	ids := []any{}
	for _, s := range old {
		ids = append(ids, s["id"])
	}
	return fields{"destroyed": ids, "before": append([]fields{}, old...)}
}

// sessions is the answer of a read.
func sessions(list ...fields) fields {
	return answer("sessions", fields{"sessions": append([]fields{}, list...)})
}

// failed is an error.
func failed(name, message string) fields {
	return answer("error", fields{"case": name, "message": message})
}

var unknown = failed("outcome-unknown", "lost")

var consistent = fields{"consistent": true, "name": "x"}

// final is the truth at the end.
func final(list ...fields) fields {
	return fields{"sessions": append([]fields{}, list...)}
}
