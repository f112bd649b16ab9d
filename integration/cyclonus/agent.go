package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// patience is how long anything may take that is waited for.
const patience = 60 * time.Second

// agent is a running `namegate agent` with the directories that it was given.
type agent struct {
	directory string
	command   *exec.Cmd
	api       http.Client
}

func newAgent(program string) (*agent, error) {
	directory, err := os.MkdirTemp("", "namegate-cyclonus-")
	if err != nil {
		return nil, err
	}
	a := &agent{directory: directory}
	for _, name := range []string{"objects", "run", "state"} {
		if err := os.Mkdir(a.path(name), 0o700); err != nil {
			return nil, err
		}
	}
	log, err := os.Create(a.path("log"))
	if err != nil {
		return nil, err
	}
	a.command = exec.Command(program, "agent", "--node", "node", "--objects", a.path("objects"),
		"--run-dir", a.path("run"), "--state-dir", a.path("state"), "--upstream", "192.0.2.53",
		"--http", "off", "--records-group", "off")
	a.command.Stdout, a.command.Stderr = log, log
	a.command.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	a.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	a.api.Transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", a.path("run/namegate.sock"))
		},
	}
	return a, a.command.Start()
}

func (a *agent) path(name string) string { return filepath.Join(a.directory, name) }

func (a *agent) log() string {
	text, _ := os.ReadFile(a.path("log"))
	return string(text)
}

func (a *agent) stop() {
	_ = a.command.Process.Kill()
	_ = a.command.Wait()
	_ = os.RemoveAll(a.directory)
}

// give replaces all objects, and returns when the plan that follows from them is in force: the one
// under which `policy` selects `endpoint`.
func (a *agent) give(objects []byte, endpoint, policy string) error {
	next := a.path("next")
	if err := os.WriteFile(next, objects, 0o600); err != nil {
		return err
	}
	if err := os.Rename(next, a.path("objects/all.yaml")); err != nil {
		return err
	}
	for begun := time.Now(); ; time.Sleep(2 * time.Millisecond) {
		selects, err := a.selects(endpoint, policy)
		if selects {
			return nil
		}
		if time.Since(begun) > patience {
			return fmt.Errorf("the objects are not in force after %v: %v", patience, err)
		}
	}
}

func (a *agent) selects(endpoint, policy string) (bool, error) {
	answer, err := a.api.Get("http://agent/v1/status")
	if err != nil {
		return false, err
	}
	defer answer.Body.Close()
	var status struct {
		Ready     bool `json:"ready"`
		Endpoints []struct {
			Endpoint string   `json:"endpoint"`
			Policies []string `json:"policies"`
		} `json:"endpoints"`
	}
	if err := json.NewDecoder(answer.Body).Decode(&status); err != nil {
		return false, err
	}
	if !status.Ready {
		return false, nil
	}
	for _, row := range status.Endpoints {
		if row.Endpoint == endpoint {
			return slices.Contains(row.Policies, policy), nil
		}
	}
	return false, nil
}
