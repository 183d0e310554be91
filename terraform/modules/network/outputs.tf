output "vpc_id" {
  description = "ID of the VPC."
  value       = aws_vpc.network.id
}

output "public_subnet_ids" {
  description = "IDs of the public subnets, one per zone."
  value       = aws_subnet.public[*].id
}

output "private_subnet_ids" {
  description = "IDs of the private subnets, one per zone, available after their routes."
  value       = aws_subnet.private[*].id

  # A node without a route to the registry and the Kubernetes API cannot join the
  # cluster, and cannot leave it.
  depends_on = [
    aws_route.private_nat,
    aws_route_table_association.private,
    aws_route_table_association.public,
    aws_vpc_endpoint.gateway,
  ]
}

output "nat_public_ips" {
  description = "Source addresses of traffic from the private subnets to the internet."
  value       = aws_eip.nat[*].public_ip
}
