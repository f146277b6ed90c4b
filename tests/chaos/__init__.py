"""Two API processes, three workers and many clients, while whatever can break is broken; and a judge."""
