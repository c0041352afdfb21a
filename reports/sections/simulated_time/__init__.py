"""The section "Simulated time": what each centre did on the virtual clock."""
