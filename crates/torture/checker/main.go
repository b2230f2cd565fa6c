// The checker of a torture run: reads a history and decides whether its answers can all be true.
//
// The first argument is the file, or `-`. The verdict is printed as JSON. The exit status is 0 if
// everything is right, 1 if something is wrong or undecided, and 2 if there is no verdict.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"
)

func main() {
	limit := flag.Duration("limit", 30*time.Second, "the time of the search for one name or key")
	flag.Parse()
	right, err := run(flag.Arg(0), *limit)
	if err != nil {
		fmt.Fprintln(os.Stderr, "no verdict:", err)
		os.Exit(2)
	}
	if !right {
		os.Exit(1)
	}
}

func run(path string, limit time.Duration) (bool, error) {
	input := os.Stdin
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return false, err
		}
		defer file.Close()
		input = file
	}
	records, err := readHistory(input)
	if err != nil {
		return false, err
	}
	if !isComplete(records) {
		return false, errors.New("the history is incomplete: it has no final record, so calls that ran may be missing")
	}
	verdict := judge(records, limit)
	encoder := json.NewEncoder(os.Stdout)
	return verdict.Right, encoder.Encode(verdict)
}

// isComplete returns whether the run came to its end. Before that, calls are missing that run, and what
// they did has no explanation.
func isComplete(records []*Record) bool {
	for _, r := range records {
		if r.Kind == "final" {
			return true
		}
	}
	return false
}

// judge applies all checks.
func judge(records []*Record, limit time.Duration) *Verdict {
	v := newVerdict(records)
	k := learn(records)
	k.judgeIntervals(v)
	k.judgeSessions(v, limit)
	k.judgeLocks(v, limit)
	k.judgeRegisters(v, limit)
	k.judgeSemaphores(v)
	k.judgeWatches(v)
	v.Right = len(v.Wrong) == 0 && len(v.Undecided) == 0
	return v
}
