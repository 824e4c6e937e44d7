"""What runs inside the jail. Standard library and plugind.linux only; copied into the jail, never bind-mounted."""
