// The workloads of the benchmark with Consul's own client, used as its documentation shows it.
//
// Each line of the input is an order in JSON, each line of the output has the time of each call.
// With the arguments "once ADDRESS ID" the program reads one session and exits.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/consul/api"
)

type order struct {
	Work    string
	Calls   int
	Batch   int
	AtOnce  int
	Listed  int
	Address string
	ID      string
	Name    string
	Made    string
}

type answer struct {
	Times []int64 `json:"times"`
	CPU   int64   `json:"cpu"`
	Error *string `json:"error"`
}

func main() {
	if len(os.Args) == 4 && os.Args[1] == "once" {
		client, err := connect(os.Args[2])
		if err == nil {
			err = info(client, os.Args[3])
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	clients := map[string]*api.Client{}
	lines := bufio.NewScanner(os.Stdin)
	output := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var o order
		err := json.Unmarshal(lines.Bytes(), &o)
		if err == nil && clients[o.Address] == nil {
			clients[o.Address], err = connect(o.Address)
		}
		var a answer
		if err == nil {
			a, err = run(clients[o.Address], &o)
		}
		if err != nil {
			text := err.Error()
			a.Error = &text
		}
		if output.Encode(a) != nil {
			return
		}
	}
}

func connect(address string) (*api.Client, error) {
	config := api.DefaultConfig()
	config.Address = address
	return api.NewClient(config)
}

func run(client *api.Client, o *order) (answer, error) {
	times := make([]int64, 0, o.Calls)
	before := cpu()
	for range o.Calls {
		start := time.Now()
		if err := once(client, o); err != nil {
			return answer{}, err
		}
		times = append(times, time.Since(start).Nanoseconds())
	}
	return answer{Times: times, CPU: cpu() - before}, nil
}

func once(client *api.Client, o *order) error {
	sessions := client.Session()
	switch o.Work {
	case "info":
		return info(client, o.ID)
	case "create-destroy":
		id, _, err := sessions.Create(&api.SessionEntry{Name: o.Made}, nil)
		if err != nil {
			return err
		}
		_, err = sessions.Destroy(id, nil)
		return err
	case "present":
		return present(client, o.Name)
	case "list":
		listed, _, err := sessions.List(nil)
		if err == nil && len(listed) != o.Listed {
			err = fmt.Errorf("%d sessions instead of %d", len(listed), o.Listed)
		}
		return err
	case "create":
		return create(client, o)
	}
	return errors.New("unknown workload " + o.Work)
}

func info(client *api.Client, id string) error {
	session, _, err := client.Session().Info(id, nil)
	if err == nil && session == nil {
		err = errors.New("no session")
	}
	return err
}

// Looks for the sessions of that name on the agent's own node, as a careful caller does.
func present(client *api.Client, name string) error {
	listed, _, err := client.Session().List(nil)
	if err != nil {
		return err
	}
	node := ""
	for _, session := range listed {
		if session.Name != name {
			continue
		}
		if node == "" {
			// Not NodeName(), which caches the answer.
			self, err := client.Agent().Self()
			if err != nil {
				return err
			}
			node, _ = self["Config"]["NodeName"].(string)
		}
		if session.Node == node {
			return nil
		}
	}
	return errors.New("no session of that name")
}

// Creates a batch of sessions, with as many concurrent requests as the order says.
func create(client *api.Client, o *order) error {
	var begun atomic.Int64
	var failed atomic.Pointer[error]
	var workers sync.WaitGroup
	for range o.AtOnce {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for begun.Add(1) <= int64(o.Batch) {
				if _, _, err := client.Session().Create(&api.SessionEntry{Name: o.Made}, nil); err != nil {
					failed.Store(&err)
					return
				}
			}
		}()
	}
	workers.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// Returns the processor time of this process so far.
func cpu() int64 {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return usage.Utime.Nano() + usage.Stime.Nano()
}
