"""Starting and stopping Flower's processes: simulation, Ray, SuperLink, nodes, certificates, bundles."""
