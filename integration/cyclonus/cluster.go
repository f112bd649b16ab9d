package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/mattfenwick/cyclonus/pkg/kube"
	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// marker is the namespace and the name of a pod that no case speaks of. A policy that selects it is
// named after the revision of the objects, so that the agent's status tells which one is in force.
const marker = "namegate-cyclonus"

// cluster is what cyclonus takes for a cluster. The objects live in cyclonus' own store in memory;
// what is made, changed or deleted is put in force before the next probe.
type cluster struct {
	*kube.MockKubernetes
	node  *node
	agent *agent

	mutex    sync.Mutex
	networks map[string]*podNetwork
	services int
	revision int
	stale    bool
}

func newCluster(node *node, agent *agent) *cluster {
	return &cluster{
		MockKubernetes: kube.NewMockKubernetes(1),
		node:           node,
		agent:          agent,
		networks:       map[string]*podNetwork{},
		stale:          true,
	}
}

func (c *cluster) CreateNamespace(namespace *v1.Namespace) (*v1.Namespace, error) {
	c.stale = true
	return c.MockKubernetes.CreateNamespace(namespace)
}

// SetNamespaceLabels replaces all labels but the one that the API server sets itself.
func (c *cluster) SetNamespaceLabels(name string, labels map[string]string) (*v1.Namespace, error) {
	namespace, ok := c.Namespaces[name]
	if !ok {
		return nil, fmt.Errorf("namespace %s not found", name)
	}
	c.stale = true
	namespace.NamespaceObject.Labels = labels
	return c.GetNamespace(name)
}

func (c *cluster) DeleteNamespace(name string) error {
	pods, err := c.GetPodsInNamespace(name)
	if err != nil {
		return err
	}
	for _, pod := range pods {
		if err := c.DeletePod(name, pod.Name); err != nil {
			return err
		}
	}
	c.stale = true
	return c.MockKubernetes.DeleteNamespace(name)
}

func (c *cluster) CreateNetworkPolicy(policy *networkingv1.NetworkPolicy) (*networkingv1.NetworkPolicy, error) {
	c.stale = true
	return c.MockKubernetes.CreateNetworkPolicy(policy)
}

func (c *cluster) UpdateNetworkPolicy(policy *networkingv1.NetworkPolicy) (*networkingv1.NetworkPolicy, error) {
	c.stale = true
	return c.MockKubernetes.UpdateNetworkPolicy(policy)
}

func (c *cluster) DeleteNetworkPolicy(namespace, name string) error {
	c.stale = true
	return c.MockKubernetes.DeleteNetworkPolicy(namespace, name)
}

func (c *cluster) DeleteAllNetworkPoliciesInNamespace(namespace string) error {
	c.stale = true
	return c.MockKubernetes.DeleteAllNetworkPoliciesInNamespace(namespace)
}

// CreatePod makes the pod's network and servers.
func (c *cluster) CreatePod(pod *v1.Pod) (*v1.Pod, error) {
	network, err := c.node.newPodNetwork()
	if err != nil {
		return nil, err
	}
	for _, container := range pod.Spec.Containers {
		for _, port := range container.Ports {
			if err := network.serve(port); err != nil {
				return nil, err
			}
		}
	}
	made, err := c.MockKubernetes.CreatePod(pod)
	if err != nil {
		return nil, err
	}
	made.Spec.NodeName = "node"
	made.Status.PodIP = network.address
	made.Status.PodIPs = []v1.PodIP{{IP: network.address}}
	c.networks[pod.Namespace+"/"+pod.Name] = network
	c.stale = true
	return made, nil
}

func (c *cluster) SetPodLabels(namespace, name string, labels map[string]string) (*v1.Pod, error) {
	c.stale = true
	return c.MockKubernetes.SetPodLabels(namespace, name, labels)
}

func (c *cluster) DeletePod(namespace, name string) error {
	key := namespace + "/" + name
	if network, ok := c.networks[key]; ok {
		delete(c.networks, key)
		if err := network.close(); err != nil {
			return err
		}
	}
	c.stale = true
	return c.MockKubernetes.DeletePod(namespace, name)
}

// CreateService gives the service an address that stands for its one pod's: cyclonus makes one
// service for each pod, after it.
func (c *cluster) CreateService(service *v1.Service) (*v1.Service, error) {
	name, ok := strings.CutPrefix(service.Name, fmt.Sprintf("s-%s-", service.Namespace))
	network := c.networks[service.Namespace+"/"+name]
	if !ok || network == nil {
		return nil, fmt.Errorf("service %s/%s is of no pod", service.Namespace, service.Name)
	}
	c.services++
	service.Spec.ClusterIP = fmt.Sprintf("10.96.%d.%d", c.services/250, 1+c.services%250)
	c.stale = true
	if err := c.node.translate(service.Spec.ClusterIP, network.address); err != nil {
		return nil, err
	}
	return c.MockKubernetes.CreateService(service)
}

func (c *cluster) DeleteService(namespace, name string) error {
	service, err := c.GetService(namespace, name)
	if err != nil {
		return err
	}
	pod := c.networks[namespace+"/"+strings.TrimPrefix(name, fmt.Sprintf("s-%s-", namespace))]
	if pod != nil {
		if err := c.node.forget(service.Spec.ClusterIP, pod.address); err != nil {
			return err
		}
	}
	c.stale = true
	return c.MockKubernetes.DeleteService(namespace, name)
}

// ExecuteRemoteCommand runs the one command that cyclonus uses: /agnhost connect HOST:PORT
// --timeout=Ns --protocol=P. The first error is the command's, the second that of running it.
func (c *cluster) ExecuteRemoteCommand(namespace, pod, _ string, command []string) (string, string, error, error) {
	if err := c.putInForce(); err != nil {
		return "", "", nil, err
	}
	network := c.networks[namespace+"/"+pod]
	if network != nil && c.reaches(namespace, pod, command[2]) {
		return "", "", errors.New("a pod's own service is not probed"), nil
	}
	if network == nil || len(command) != 5 || command[1] != "connect" {
		return "", "", nil, fmt.Errorf("cannot run %q in %s/%s", command, namespace, pod)
	}
	timeout, err := time.ParseDuration(strings.TrimPrefix(command[3], "--timeout="))
	if err != nil {
		return "", "", nil, err
	}
	protocol := strings.TrimPrefix(command[4], "--protocol=")
	for begun := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		switch refused := network.connect(protocol, command[2], timeout); {
		case refused == nil, isRefusal(refused):
			return "", "", refused, nil
		case time.Since(begun) > timeout:
			return "", "", nil, refused
		}
	}
}

// isRefusal tells whether an error is one that a policy causes: a reset, an ICMP error, or silence.
// Any other one is the machine's, which may be short of something for a moment.
func isRefusal(failure error) bool {
	var timeout net.Error
	return errors.Is(failure, unix.ECONNREFUSED) || errors.Is(failure, unix.EHOSTUNREACH) ||
		errors.As(failure, &timeout) && timeout.Timeout()
}

// reaches tells whether an address with a port is that of the pod's own service. Such a packet
// would need masquerading to be answered, and its probe is not counted.
func (c *cluster) reaches(namespace, pod, address string) bool {
	service, err := c.GetService(namespace, fmt.Sprintf("s-%s-%s", namespace, pod))
	return err == nil && strings.HasPrefix(address, service.Spec.ClusterIP+":")
}

// putInForce gives the agent what has changed, and waits for it. Probes come at the same time, and
// wait for the first.
func (c *cluster) putInForce() error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if !c.stale {
		return nil
	}
	c.revision++
	policy := fmt.Sprintf("revision-%d", c.revision)
	objects, err := c.objects(policy)
	if err != nil {
		return err
	}
	if err := c.agent.give(objects, marker+"/"+marker, marker+"/"+policy); err != nil {
		return fmt.Errorf("%w\nthe agent's log:\n%s", err, c.agent.log())
	}
	c.stale = false
	return nil
}

// objects writes everything as a stream of documents (JSON is YAML).
func (c *cluster) objects(revision string) ([]byte, error) {
	var text bytes.Buffer
	var failure error
	add := func(apiVersion, kind string, object any) {
		written, err := json.Marshal(object)
		var fields map[string]any
		if err == nil {
			err = json.Unmarshal(written, &fields)
		}
		if err == nil {
			fields["apiVersion"], fields["kind"] = apiVersion, kind
			written, err = json.Marshal(fields)
		}
		if err != nil {
			failure = err
			return
		}
		text.WriteString("---\n")
		text.Write(written)
		text.WriteByte('\n')
	}
	of := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: marker, Name: name} }
	add("v1", "Pod", &v1.Pod{
		ObjectMeta: of(marker),
		Spec:       v1.PodSpec{NodeName: "node"},
		Status:     v1.PodStatus{Phase: v1.PodRunning, PodIP: "10.244.255.1", PodIPs: []v1.PodIP{{IP: "10.244.255.1"}}},
	})
	add("networking.k8s.io/v1", "NetworkPolicy", &networkingv1.NetworkPolicy{
		ObjectMeta: of(revision),
		Spec:       networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{"Egress"}},
	})
	for name := range c.Namespaces {
		namespace, err := c.GetNamespace(name)
		if err != nil {
			return nil, err
		}
		add("v1", "Namespace", namespace)
		for _, pod := range c.Namespaces[name].Pods {
			add("v1", "Pod", pod)
		}
		for _, service := range c.Namespaces[name].Services {
			add("v1", "Service", service)
		}
		for _, policy := range c.Namespaces[name].Netpols {
			add("networking.k8s.io/v1", "NetworkPolicy", policy)
		}
	}
	return text.Bytes(), failure
}
