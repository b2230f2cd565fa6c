// The conformance runner for wasmtime's C library in Go: `runner PLUGIN`. ../README.md specifies the
// protocol. examples/go/plugin is the host.
package main

// #include <wasmtime.h>
import "C"

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"consul-session-example/plugin"
)

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(file string) error {
	p, err := plugin.Load(file)
	if err != nil {
		return err
	}
	defer p.Close()
	lines := json.NewEncoder(os.Stdout)
	if err := lines.Encode(map[string]string{"runtime": "wasmtime's C library (Go)", "version": C.WASMTIME_VERSION}); err != nil {
		return err
	}
	input := json.NewDecoder(os.Stdin)
	for {
		var options string
		if err := input.Decode(&options); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		answer, err := answer(p, options)
		if err != nil {
			return err
		}
		if err := lines.Encode(answer); err != nil {
			return err
		}
	}
}

// answer returns the object that the protocol has for a call. An error is a trap.
func answer(p *plugin.Plugin, options string) (map[string]any, error) {
	text, err := p.ApplyJSON(options)
	var failure *plugin.Error
	switch {
	case errors.As(err, &failure):
		return map[string]any{"err": map[string]any{"tag": failure.Case, "val": failure.Payload}}, nil
	case err != nil:
		return nil, err
	}
	return map[string]any{"ok": text}, nil
}
