package v1beta1

// ForWorkers returns what the workers of a profile need to know, and no more:
// nothing of the store, of the controllers' users, or of other profiles.
func (c *ClusterConfig) ForWorkers(profile string) *ClusterConfig {
	w := Default()
	w.ObjectMeta.Name, w.ObjectMeta.Namespace = c.Name, c.Namespace
	w.Spec.Network = c.Spec.Network
	w.Spec.Network.ControlPlaneLoadBalancing = ControlPlaneLoadBalancingSpec{}
	w.Spec.Network.CoreDNS = CoreDNSSpec{}
	w.Spec.Network.PrimaryAddressFamily = c.PrimaryFamily() // it may follow from a controller's address
	w.Spec.Images = c.Spec.Images
	w.Spec.FeatureGates = c.Spec.FeatureGates
	w.Spec.Konnectivity = c.Spec.Konnectivity
	w.Spec.API.ExternalAddress = c.Spec.API.ExternalAddress
	w.Spec.API.Port = c.Spec.API.Port
	for _, p := range c.Spec.WorkerProfiles {
		if p.Name == profile {
			w.Spec.WorkerProfiles = []WorkerProfile{p}
		}
	}
	return w
}
