# Gateway endpoints are free and save the NAT gateway's charge. They keep the default
# policy, because nodes pull image layers from buckets owned by AWS; the pods' role
# limits the pods.
data "aws_vpc_endpoint_service" "gateway" {
  for_each = toset(["dynamodb", "s3"])

  service      = each.key
  service_type = "Gateway"
}

resource "aws_vpc_endpoint" "gateway" {
  for_each = toset(["dynamodb", "s3"])

  vpc_id            = aws_vpc.network.id
  vpc_endpoint_type = "Gateway"
  service_name      = data.aws_vpc_endpoint_service.gateway[each.key].service_name
  route_table_ids   = aws_route_table.private[*].id

  tags = { Name = "${var.name}-${each.key}" }
}
