// Command cyclonus runs all generated cases of github.com/mattfenwick/cyclonus, unmodified, against
// a running agent.
//
// cyclonus makes NetworkPolicies, computes with its own simulator who may reach whom, and probes.
// What it takes for a cluster here (Cluster) are network namespaces and one file of objects that
// the agent watches; no API server takes part. Everything lies in a network namespace of this
// process and ends with it. Needs root.
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sort"
	"syscall"
	"time"

	"github.com/mattfenwick/cyclonus/pkg/connectivity"
	"github.com/mattfenwick/cyclonus/pkg/connectivity/probe"
	"github.com/mattfenwick/cyclonus/pkg/generator"
	"github.com/sirupsen/logrus"
	v1 "k8s.io/api/core/v1"
)

// own is set for the process that is in the node's network namespace.
const own = "NAMEGATE_CYCLONUS_NODE"

// The pods that cyclonus' cases speak of: three in each of three namespaces, each serving both
// ports over both protocols. SCTP has no server here; its rules are in force all the same.
var (
	namespaces = []string{"x", "y", "z"}
	podNames   = []string{"a", "b", "c"}
	ports      = []int{80, 81}
	protocols  = []v1.Protocol{v1.ProtocolTCP, v1.ProtocolUDP}
)

type options struct {
	agent   string
	mode    string
	only    string
	short   bool
	verbose bool
}

func main() {
	var o options
	flag.StringVar(&o.agent, "agent", "namegate", "the program namegate")
	flag.StringVar(&o.mode, "mode", generator.ProbeModePodIP, "what probes ask: pod-ip, or service-ip, without the cases that change pods")
	flag.StringVar(&o.only, "tag", "", "run the cases with this tag of cyclonus alone, for example ingress")
	flag.BoolVar(&o.short, "short", false, "run every tenth case")
	flag.BoolVar(&o.verbose, "v", false, "print cyclonus' tables of the cases that fail")
	flag.Parse()

	// The agent gets a signal when the thread that started it ends, so this is the thread.
	runtime.LockOSThread()
	if os.Getenv(own) == "" {
		os.Exit(inNamespace())
	}
	logrus.SetLevel(logrus.ErrorLevel)
	passed, err := run(o)
	if err != nil {
		log.Fatalf("cyclonus: %v", err)
	}
	if !passed {
		os.Exit(1)
	}
}

// inNamespace starts this program again in a network and a mount namespace of its own.
func inNamespace() int {
	command := exec.Command("/proc/self/exe", os.Args[1:]...)
	command.Env = append(os.Environ(), own+"=1")
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := command.Run(); err != nil {
		if command.ProcessState == nil {
			log.Printf("cyclonus: %v (it needs root)", err)
			return 2
		}
		return max(command.ProcessState.ExitCode(), 1)
	}
	return 0
}

func run(o options) (bool, error) {
	mode, err := generator.ParseProbeMode(o.mode)
	if err != nil {
		return false, err
	}
	node, err := newNode()
	if err != nil {
		return false, err
	}
	agent, err := newAgent(o.agent)
	if err != nil {
		return false, err
	}
	defer agent.stop()
	cluster := newCluster(node, agent)

	// cyclonus prints what it makes; only its verdicts are of interest.
	resources, err := quietly(func() (*probe.Resources, error) {
		return probe.NewDefaultResources(cluster, namespaces, podNames, ports, protocols, nil, 60, false, "")
	})
	if err != nil {
		return false, err
	}
	if err := cluster.putInForce(); err != nil {
		return false, err
	}
	zc, err := resources.GetPod("z", "c")
	if err != nil {
		return false, err
	}
	var tags []string
	if o.only != "" {
		tags = []string{o.only}
	}
	cases := generator.NewTestCaseGenerator(true, zc.IP, namespaces, tags, nil).GenerateTestCases()
	if o.short {
		cases = everyTenth(cases)
	}
	if mode == generator.ProbeModeServiceIP {
		cases = slices.DeleteFunc(cases, forgetsServices)
	}
	config := &connectivity.InterpreterConfig{
		ResetClusterBeforeTestCase:       true,
		VerifyClusterStateBeforeTestCase: true,
		KubeProbeRetries:                 2,
		// A pod's packets to its own address never leave it, so no policy can speak of them.
		IgnoreLoopback: true,
		// What is refused is told so at once. Only a machine that stands still makes a probe wait.
		JobTimeoutSeconds: 10,
	}
	interpreter, err := quietly(func() (*connectivity.Interpreter, error) {
		return connectivity.NewInterpreter(cluster, resources, config), nil
	})
	if err != nil {
		return false, err
	}
	var total summary
	for number, testCase := range cases {
		for _, step := range testCase.Steps {
			step.Probe.Mode = mode
		}
		result, err := quietly(func() (*connectivity.Result, error) {
			return interpreter.ExecuteTestCase(testCase), nil
		})
		if err != nil || result.Err != nil {
			return false, fmt.Errorf("case %d (%s): %v %v\nthe agent's log:\n%s",
				number+1, testCase.Description, err, result.Err, agent.log())
		}
		total.add(number+1, result, o.verbose)
	}
	total.print()
	return total.failed == 0, nil
}

// forgetsServices tells whether cyclonus loses the address of a pod's service in a case: where it
// makes a pod or changes one's labels.
func forgetsServices(testCase *generator.TestCase) bool {
	return slices.ContainsFunc(testCase.Steps, func(step *generator.TestStep) bool {
		return slices.ContainsFunc(step.Actions, func(action *generator.Action) bool {
			return action.CreatePod != nil || action.SetPodLabels != nil
		})
	})
}

func everyTenth(cases []*generator.TestCase) []*generator.TestCase {
	var some []*generator.TestCase
	for index := 0; index < len(cases); index += 10 {
		some = append(some, cases[index])
	}
	return some
}

// summary counts cases and probes.
type summary struct {
	passed, failed, steps int
	right, wrong          int
	begun                 time.Time
	failedTags            map[string]int
}

func (s *summary) add(number int, result *connectivity.Result, verbose bool) {
	if s.begun.IsZero() {
		s.begun, s.failedTags = time.Now(), map[string]int{}
	}
	s.steps += len(result.Steps)
	for _, step := range result.Steps {
		for _, comparisons := range step.LastComparison().ValueCountsByProtocol(true) {
			s.right += comparisons[connectivity.SameComparison]
			s.wrong += comparisons[connectivity.DifferentComparison]
		}
	}
	if result.Passed(true) {
		s.passed++
		return
	}
	s.failed++
	fmt.Printf("case %d failed: %s %v\n", number, result.TestCase.Description, result.TestCase.Tags.Keys())
	for _, tag := range result.TestCase.Tags.Keys() {
		s.failedTags[tag]++
	}
	if !verbose {
		return
	}
	for _, step := range result.Steps {
		if !step.Passed(true) {
			fmt.Println(step.Policy.ExplainTable())
			fmt.Println("expected:", step.SimulatedProbe.RenderTable())
			fmt.Println("seen:", step.LastKubeProbe().RenderTable())
		}
	}
}

func (s *summary) print() {
	fmt.Printf("cyclonus: %d of %d cases passed, %d steps, %d probes right, %d wrong, in %.0f s\n",
		s.passed, s.passed+s.failed, s.steps, s.right, s.wrong, time.Since(s.begun).Seconds())
	var tags []string
	for tag, count := range s.failedTags {
		tags = append(tags, fmt.Sprintf("%s %d", tag, count))
	}
	sort.Strings(tags)
	if len(tags) > 0 {
		fmt.Println("tags of the cases that failed:", tags)
	}
}

// quietly calls f with standard output discarded.
func quietly[T any](f func() (T, error)) (T, error) {
	read, write, err := os.Pipe()
	if err != nil {
		var none T
		return none, err
	}
	stdout := os.Stdout
	os.Stdout = write
	drained := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, read)
		close(drained)
	}()
	result, err := f()
	os.Stdout = stdout
	write.Close()
	<-drained
	read.Close()
	return result, err
}
