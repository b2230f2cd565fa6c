package main

import (
	"encoding/json"
	"fmt"
	"os"

	"consul-session-example/plugin"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	p, err := plugin.Load("dist/consul-session-plugin.wasm")
	if err != nil {
		return err
	}
	defer p.Close()

	options := map[string]string{"name": "session1", "delay": "20s"}
	if len(os.Args) > 1 {
		options["port"] = os.Args[1]
	}
	argument, err := json.Marshal(options)
	if err != nil {
		return err
	}
	text, err := p.ApplyJSON(string(argument))
	if err != nil {
		return err
	}
	var answer struct {
		SessionID string `json:"session_id"`
		Changed   bool   `json:"changed"`
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		return err
	}
	change := "unchanged"
	if answer.Changed {
		change = "changed"
	}
	fmt.Println(answer.SessionID, change)
	return nil
}
