"""What this process may use of the machine: threads and memory, by its control groups and affinity."""
