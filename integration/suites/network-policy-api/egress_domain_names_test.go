package domainnames

import (
	"testing"

	"k8s.io/apimachinery/pkg/util/sets"
	k8sclient "k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/config"

	api "sigs.k8s.io/network-policy-api/apis/v1beta1"
	"sigs.k8s.io/network-policy-api/conformance/utils/flags"
	"sigs.k8s.io/network-policy-api/conformance/utils/suite"
)

// TestDomainNames runs them in the cluster of $KUBECONFIG, with the base resources of the suite.
func TestDomainNames(t *testing.T) {
	cfg, err := config.GetConfig()
	if err != nil {
		t.Fatalf("Error loading Kubernetes config: %v", err)
	}
	c, err := client.New(cfg, client.Options{})
	if err != nil {
		t.Fatalf("Error initializing Kubernetes client: %v", err)
	}
	if err := api.Install(c.Scheme()); err != nil {
		t.Fatalf("Error installing api scheme: %v", err)
	}
	clientSet, err := k8sclient.NewForConfig(cfg)
	if err != nil {
		t.Fatalf("error when creating Kubernetes ClientSet: %v", err)
	}
	cSuite := suite.New(suite.Options{
		Client:               c,
		ClientSet:            clientSet,
		KubeConfig:           *cfg,
		Debug:                *flags.ShowDebug,
		CleanupBaseResources: *flags.CleanupBaseResources,
		SupportedFeatures:    sets.New(SupportClusterNetworkPolicyEgressDomainNames),
	})
	cSuite.Setup(t)
	// The base resources are the suite's, the tests' own are here.
	cSuite.Applier.FS = Manifests
	cSuite.Run(t, ConformanceTests)
}
