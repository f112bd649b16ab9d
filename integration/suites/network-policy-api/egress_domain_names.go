// Package domainnames has the tests of `domainNames` that the conformance suite of sigs.k8s.io/network-policy-api lacks, in the
// suite's form: its types, its base resources, its way to probe. What they expect is in NPEP-133 and in the types.
//
// Domain names are somebody else's, so that the cluster's resolver must have some for the tests. In the zone of --domain-names-zone
// these are the zone itself, `www` and `latest.blog`, and outside of it is --domain-names-other. Each leads to an address of its
// own outside of the cluster, which accepts TCP connections at both of --domain-names-ports.
package domainnames

import (
	"embed"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"testing"

	api "sigs.k8s.io/network-policy-api/apis/v1beta1"
	"sigs.k8s.io/network-policy-api/conformance/utils/kubernetes"
	"sigs.k8s.io/network-policy-api/conformance/utils/suite"
)

// Manifests are those of the tests.
//
//go:embed base/*
var Manifests embed.FS

// SupportClusterNetworkPolicyEgressDomainNames says that `domainNames` are enforced.
const SupportClusterNetworkPolicyEgressDomainNames suite.SupportedFeature = "ClusterNetworkPolicyEgressDomainNames"

var (
	zone  = flag.String("domain-names-zone", "conformance.example", "domain whose names the tests allow")
	other = flag.String("domain-names-other", "elsewhere.example", "name outside of that domain")
	ports = flag.String("domain-names-ports", "443,8443", "two TCP ports that are served by each name")
)

// ConformanceTests are all of them.
var ConformanceTests = []suite.ConformanceTest{CNPAdminTierEgressDomainNames, CNPBaselineTierEgressDomainNames}

var features = []suite.SupportedFeature{suite.SupportClusterNetworkPolicy, SupportClusterNetworkPolicyEgressDomainNames}

// CNPAdminTierEgressDomainNames is about rules of the Admin tier.
var CNPAdminTierEgressDomainNames = suite.ConformanceTest{
	ShortName:   "CNPAdminTierEgressDomainNames",
	Description: "Tests support for egress traffic to domain name peers using admin cluster network policy API",
	Features:    features,
	Manifests:   []string{"base/admin_tier/experimental-egress-domain-names.yaml"},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		names := domain{t, s, "domain-names-as-peers-example"}
		// harry-potter-1 is our client pod in gryffindor namespace; egressRule at index0 is the one that each subtest sets
		t.Run("Should support an 'allow-egress' rule policy for an exact domain name", func(t *testing.T) {
			names := names.with(t)
			names.accept("exact", nil, *zone)
			names.poke(*zone, 0, true)
			// what the name does not match can be resolved, and is DENIED by egressRule at index2
			names.poke("www."+*zone, 0, false)
			names.poke(*other, 0, false)
		})
		t.Run("Should support an 'allow-egress' rule policy for a wildcard domain name", func(t *testing.T) {
			names := names.with(t)
			names.accept("wildcard", nil, "*."+*zone)
			names.poke("www."+*zone, 0, true)
			// '*' matches one or more entire labels
			names.poke("latest.blog."+*zone, 0, true)
			// ... but not none
			names.poke(*zone, 0, false)
			names.poke(*other, 0, false)
		})
		t.Run("Should support an 'allow-egress' rule policy for several domain names", func(t *testing.T) {
			names := names.with(t)
			names.accept("several", nil, *zone, *other)
			names.poke(*zone, 0, true)
			names.poke(*other, 0, true)
			names.poke("www."+*zone, 0, false)
		})
		t.Run("Should not distinguish the case of domain names, nor a trailing dot", func(t *testing.T) {
			names := names.with(t)
			names.accept("upper-case", nil, "WWW."+strings.ToUpper(*zone)+".")
			names.poke("www."+*zone, 0, true)
			names.poke("latest.blog."+*zone, 0, false)
		})
		t.Run("Should restrict a domain name to the ports of its rule", func(t *testing.T) {
			names := names.with(t)
			names.accept("port", []int32{port(t, 1)}, *zone)
			names.poke(*zone, 1, true)
			names.poke(*zone, 0, false)
		})
		t.Run("Should let a 'deny-egress' rule of higher precedence win over a domain name", func(t *testing.T) {
			names := names.with(t)
			names.accept("exact", nil, *zone)
			names.poke(*zone, 0, true)
			names.insert(api.ClusterNetworkPolicyEgressRule{
				Name:   "deny-first",
				Action: api.ClusterNetworkPolicyRuleActionDeny,
				To:     []api.ClusterNetworkPolicyEgressPeer{{Networks: []api.CIDR{"0.0.0.0/0", "::/0"}}},
			})
			names.poke(*zone, 0, false)
		})
		t.Run("Should stop allowing a domain name when its rule is gone", func(t *testing.T) {
			names := names.with(t)
			names.accept("exact", nil, *zone)
			names.poke(*zone, 0, true)
			names.clear()
			names.poke(*zone, 0, false)
		})
	},
}

// CNPBaselineTierEgressDomainNames is about rules of the Baseline tier.
var CNPBaselineTierEgressDomainNames = suite.ConformanceTest{
	ShortName:   "CNPBaselineTierEgressDomainNames",
	Description: "Tests support for egress traffic to domain name peers using baseline cluster network policy API",
	Features:    features,
	Manifests:   []string{"base/baseline_tier/experimental-egress-domain-names.yaml"},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		names := domain{t, s, "baseline-domain-names-as-peers-example"}
		t.Run("Should support an 'allow-egress' rule policy for an exact domain name", func(t *testing.T) {
			names := names.with(t)
			names.accept("exact", nil, *zone)
			names.poke(*zone, 0, true)
			names.poke("www."+*zone, 0, false)
		})
		t.Run("Should support an 'allow-egress' rule policy for a wildcard domain name", func(t *testing.T) {
			names := names.with(t)
			names.accept("wildcard", nil, "*."+*zone)
			names.poke("latest.blog."+*zone, 0, true)
			names.poke(*zone, 0, false)
		})
	},
}

// domain changes one policy, and probes.
type domain struct {
	t      *testing.T
	s      *suite.ConformanceTestSuite
	policy string
}

func (d domain) with(t *testing.T) domain { return domain{t, d.s, d.policy} }

// accept makes a rule for `names` the only one besides the manifest's. Without ports it is for all.
func (d domain) accept(rule string, ports []int32, names ...string) {
	d.t.Helper()
	d.clear()
	peer := api.ClusterNetworkPolicyEgressPeer{}
	for _, name := range names {
		peer.DomainNames = append(peer.DomainNames, api.DomainName(name))
	}
	accept := api.ClusterNetworkPolicyEgressRule{
		Name:   "allow-egress-to-" + rule,
		Action: api.ClusterNetworkPolicyRuleActionAccept,
		To:     []api.ClusterNetworkPolicyEgressPeer{peer},
	}
	for _, port := range ports {
		accept.Protocols = append(accept.Protocols, api.ClusterNetworkPolicyProtocol{
			TCP: &api.ClusterNetworkPolicyProtocolTCP{DestinationPort: &api.Port{Number: port}},
		})
	}
	d.insert(accept)
}

// insert puts a rule before all others.
func (d domain) insert(rule api.ClusterNetworkPolicyEgressRule) {
	d.t.Helper()
	d.change(func(rules []api.ClusterNetworkPolicyEgressRule) []api.ClusterNetworkPolicyEgressRule {
		return append([]api.ClusterNetworkPolicyEgressRule{rule}, rules...)
	})
}

// clear leaves the two rules of the manifest.
func (d domain) clear() {
	d.t.Helper()
	d.change(func(rules []api.ClusterNetworkPolicyEgressRule) []api.ClusterNetworkPolicyEgressRule {
		return rules[len(rules)-2:]
	})
}

func (d domain) change(rules func([]api.ClusterNetworkPolicyEgressRule) []api.ClusterNetworkPolicyEgressRule) {
	d.t.Helper()
	cnp := kubernetes.GetClusterNetworkPolicy(d.t, d.s.Client, d.policy, d.s.TimeoutConfig.GetTimeout)
	mutate := cnp.DeepCopy()
	mutate.Spec.Egress = rules(mutate.Spec.Egress)
	kubernetes.PatchClusterNetworkPolicy(d.t, d.s.Client, cnp, mutate, d.s.TimeoutConfig.GetTimeout)
}

// poke connects to a name at one of the two ports. The final dot keeps search lists out: each would be one more name.
func (d domain) poke(name string, which int, shouldConnect bool) {
	d.t.Helper()
	kubernetes.PokeServer(d.t, d.s.ClientSet, &d.s.KubeConfig, "network-policy-conformance-gryffindor", "harry-potter-1", "tcp",
		name+".", port(d.t, which), d.s.TimeoutConfig, shouldConnect)
}

func port(t *testing.T, which int) int32 {
	t.Helper()
	both := strings.Split(*ports, ",")
	if len(both) != 2 {
		t.Fatalf("--domain-names-ports takes two ports, as in 443,8443")
	}
	number, err := strconv.ParseInt(both[which], 10, 32)
	if err != nil {
		t.Fatal(fmt.Errorf("--domain-names-ports: %w", err))
	}
	return int32(number)
}
