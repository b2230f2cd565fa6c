// The part of the module's own test helpers that session_test.go, lock_test.go and
// semaphore_test.go use. It compiles beside these files only: `cargo xtask test` copies them, and
// the package that they test, from Go's module cache into `target/tools/consul-api`.
package api

import (
	"testing"

	// `go mod tidy` drops a module that nothing imports, and with it the pinned version.
	_ "github.com/hashicorp/consul/api"
)

// testAgent stands for testutil.TestServer, which starts a Consul agent for each test. Here the
// caller starts the agent and passes its address in CONSUL_HTTP_ADDR.
type testAgent struct {
	Config struct{ NodeName string }
}

// Stop leaves the agent to the caller.
func (a *testAgent) Stop() {}

// WaitForSerfCheck returns at once: the caller passes an agent that is ready.
func (a *testAgent) WaitForSerfCheck(t *testing.T) {}

func makeClient(t *testing.T) (*Client, *testAgent) {
	t.Helper()
	client, err := NewClient(DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	name, err := client.Agent().NodeName()
	if err != nil {
		t.Fatal(err)
	}
	agent := &testAgent{}
	agent.Config.NodeName = name
	return client, agent
}

func makeClientWithoutConnect(t *testing.T) (*Client, *testAgent) {
	return makeClient(t)
}
